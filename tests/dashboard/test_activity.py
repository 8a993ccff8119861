"""Activity: what an operator wants to read, in ranges of time, found by its words, on a page that stands still."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from boilerhouse.core.events import TYPES, emit, recording
from boilerhouse.core.models import Event
from boilerhouse.dashboard import event_words, journals
from boilerhouse.dashboard.templatetags.ui import TONES, plain_sentence
from syncing.models import SyncRun
from tests.make import make_sync_spec
from tests.pages import text_of

CONTAINER = "0197f000-0000-7000-8000-00001234abcd"
REFRESH = {"HX-Request": "true", "HX-Target": "main"}


@pytest.fixture
def staff(client, db, data_dir):
    client.force_login(User.objects.create_superuser("ada", password="a long password"))
    return client


def happened(type: str, at: datetime | None = None, **more: Any) -> Event:
    """An event, as if it had happened at that time."""
    with recording():
        emit(type, **more)
    event = Event.objects.latest("id")
    if at is not None:
        Event.objects.filter(pk=event.pk).update(created_at=at)
        event.refresh_from_db()
    return event


def rows_of(answer: Any) -> list[int]:
    """The ids of the events in the list, from top to bottom."""
    return [int(pk) for pk in re.findall(r'id="e-(\d+)"', answer.content.decode())]


def a_save(spec: Any, tenant: str, sent: int, *, trigger: str = "interval", deleted: int = 0) -> None:
    run = SyncRun.objects.create(
        spec=spec, tenant_id=tenant, generation=1, direction="upload", trigger=trigger, deleted=deleted,
        progress={"bytes": 5000, "files": 1, "sentBytes": sent},
    )  # fmt: skip
    runs = SyncRun.objects.filter(pk=run.pk)
    assert runs.transition("queued", "running") == runs.transition("running", "succeeded") == 1


# Noise ------------------------------------------------------------------------------------------------


def test_saves_without_changes_are_one_line_which_opens_their_list(staff):
    spec = make_sync_spec()
    for number in range(3):
        a_save(spec, f"acme-{number}", 0)
        a_save(spec, f"acme-{number}", 0)
    a_save(spec, "acme-0", 1_500_000)
    answer = staff.get("/activity/")
    page = text_of(answer)

    assert len(rows_of(answer)) == 1
    assert "sent 1.5 MB of" in page
    assert "3 tenants saved, nothing changed" in page
    link = re.search(r'class="folded" href="([^"]+)"', answer.content.decode())
    assert link
    opened = staff.get("/activity/" + link[1].replace("&amp;", "&"))
    assert len(rows_of(opened)) == 6
    assert "only: saves without changes" in text_of(opened)


@pytest.mark.parametrize("more", [{"trigger": "manual"}, {"deleted": 2}], ids=["asked for", "deleted files"])
def test_a_save_that_somebody_asked_for_or_that_deleted_is_shown(staff, more):
    a_save(make_sync_spec(), "acme", 0, **more)
    assert len(rows_of(staff.get("/activity/"))) == 1


def test_starts_and_progress_are_hidden_until_routine_is_shown_and_progress_even_then(staff):
    claimed = happened("container.claimed", tenant_id="acme", pool_id="p", container_id=CONTAINER, source="warm")
    hidden = [happened(name, tenant_id="acme", pool_id="p").pk for name in (
        "container.created", "container.ready", "container.destroyed", "sync.started",
    )]  # fmt: skip
    progress = happened("sync.progress", tenant_id="acme", bytes=5, totalBytes=10)

    assert rows_of(staff.get("/activity/")) == [claimed.pk]
    assert rows_of(staff.get("/activity/?routine=show")) == [*reversed(hidden), claimed.pk]
    assert rows_of(staff.get("/activity/?type=sync.progress")) == [progress.pk]
    assert "Saving <a" in staff.get("/activity/?type=sync.progress").content.decode()


@pytest.mark.parametrize("path", ["/", "/pools/p/?tab=timeline", "/tenants/acme/"])
def test_feeds_of_other_pages_fold_too(staff, path):
    from tenants.models import Tenant

    spec = make_sync_spec(make_pool_p())
    Tenant.objects.create(id="acme")
    a_save(spec, "acme", 0)
    happened("container.ready", pool_id="p", tenant_id="acme", durationMs=5)
    page = text_of(staff.get(path))
    assert "1 tenant saved, nothing changed" in page
    assert "is ready after" not in page


def make_pool_p() -> Any:
    from tests.make import make_pool

    return make_pool("p")


def test_a_container_page_shows_its_own_start(staff):
    from tests.make import make_container

    container = make_container(make_pool_p())
    happened("container.ready", pool_id="p", container_id=container.pk, durationMs=5)
    happened("sync.started", pool_id="p", container_id=container.pk, tenant_id="acme")
    page = text_of(staff.get(f"/containers/{container.pk}/"))
    assert "is ready after 5 ms" in page
    assert "Saving <a" not in page


@pytest.mark.any_database
def test_each_type_has_words_a_tone_and_a_sentence():
    assert set(event_words.LABELS) == TYPES == set(TONES)
    for name in TYPES:
        event = Event(type=name, tenant_id="acme", pool_id="p", actor="system", payload={}, created_at=timezone.now())
        assert plain_sentence(event) != name
        assert "None" not in plain_sentence(event) or name != "sync.progress"


# Filters ----------------------------------------------------------------------------------------------


def test_parts_and_types_include_and_exclude(staff):
    claimed = happened("container.claimed", tenant_id="acme", source="warm").pk
    failed = happened("sync.failed", tenant_id="acme", detail="x").pk
    scaled = happened("pool.scaled", pool_id="p", actor="user zoe", paused=True).pk
    node = happened("node.silent", node="n").pk

    def listed(query: str) -> list[int]:
        return rows_of(staff.get(f"/activity/{query}"))

    assert listed("") == [node, scaled, failed, claimed]
    assert listed("?part=containers") == [claimed]
    assert listed("?part=sync") == [failed]
    assert listed("?part=pools") == [node, scaled]
    assert listed("?part=people") == [scaled]
    assert listed("?type=sync.failed&type=node.silent") == [node, failed]
    assert listed("?type=-sync.failed&type=-node.silent") == [scaled, claimed]
    assert listed("?part=nothing&type=none&type=-none&routine=x") == [node, scaled, failed, claimed]
    page = text_of(staff.get("/activity/?type=-sync.failed&part=pools"))
    assert "without: Sync failed" in page
    assert '<a href="?type=-sync.failed" >All</a>' in page


def test_objects_are_filters_and_are_kept_by_the_form(staff):
    mine = happened("container.claimed", tenant_id="acme:1", container_id=CONTAINER, source="warm").pk
    happened("container.claimed", tenant_id="other", source="warm")
    for query in ("tenantId=acme:1", f"containerId={CONTAINER}"):
        answer = staff.get(f"/activity/?{query}")
        assert rows_of(answer) == [mine]
        name, value = query.split("=")
        assert f'<input type="hidden" name="{name}" value="{value}">' in text_of(answer)


# Text -------------------------------------------------------------------------------------------------

REFUSED = "agents-state answered 403 SignatureDoesNotMatch: the secret key is wrong"


@pytest.mark.parametrize("words", [
    "SignatureDoesNotMatch", "signaturedoesnotmatch", "403 secret", "org:44", "ada", "sync failed", "c-1234abcd",
    'quoted "word"', "Grüße", "back\\slash", "100%",
])  # fmt: skip
def test_the_search_finds_words_of_texts_errors_ids_and_details(staff, words):
    one = happened(
        "sync.failed", tenant_id="org:4471", actor="user ada", container_id=CONTAINER,
        detail=f'{REFUSED} quoted "word" Grüße back\\slash 100% done',
    ).pk  # fmt: skip
    happened("container.claimed", tenant_id="other", source="warm")
    assert rows_of(staff.get("/activity/", {"q": words})) == [one]


@pytest.mark.parametrize("words", ["Signature claimed", "1000%", "_", "zzz"])
def test_the_search_wants_every_word_and_no_pattern(staff, words):
    happened("sync.failed", tenant_id="org:4471", detail=REFUSED)
    answer = staff.get("/activity/", {"q": words})
    assert rows_of(answer) == []
    assert "No matches" in text_of(answer)


def test_a_search_that_runs_out_of_time_says_how_far_it_came_and_goes_on(staff, monkeypatch):
    monkeypatch.setattr(journals, "FIRST_WINDOW", 4)
    monkeypatch.setattr(journals, "WIDEST_WINDOW", 4)
    monkeypatch.setattr(journals, "BUDGET_S", -1)
    wanted = happened("sync.failed", tenant_id="acme", detail="needle").pk
    for _ in range(9):
        happened("sync.failed", tenant_id="acme", detail="hay")
    query, pages = "?q=needle", 0
    while not rows_of(answer := staff.get("/activity/" + query)):
        assert "Searched back to" in text_of(answer)
        assert "No matches yet" in text_of(answer)
        link = re.search(r'href="([^"]+)">Search older events', answer.content.decode())
        assert link
        query, pages = link[1].replace("&amp;", "&"), pages + 1
    assert rows_of(answer) == [wanted]
    assert pages == 2


def test_a_search_reads_growing_windows_and_returns_each_row_once(db, monkeypatch):
    monkeypatch.setattr(journals, "FIRST_WINDOW", 2)
    pks = [happened("pool.scaled", pool_id="p" if number % 3 else "q", paused=True).pk for number in range(40)]
    rows = Event.objects.filter(pool_id="q")
    whole = [pk for number, pk in enumerate(pks) if number % 3 == 0][::-1]
    assert [row.pk for row in journals.scan(rows, Event.objects.all(), 100, budget_s=60).rows] == whole
    part = journals.scan(rows, Event.objects.all(), 5, budget_s=-1)
    rest = journals.scan(rows, Event.objects.all(), 100, before=part.stopped_at, budget_s=60)
    assert [row.pk for row in (*part.rows, *rest.rows)] == whole


# Time -------------------------------------------------------------------------------------------------


def test_ranges_presets_and_headings_of_days(staff, monkeypatch):
    now = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
    monkeypatch.setattr("boilerhouse.dashboard.time_ranges.timezone.now", lambda: now)
    ages = {"old": 10 * 24, "thursday": 48, "late": 13, "early": 11, "new": 0.5}
    made = {name: happened("pool.scaled", now - timedelta(hours=ago), pool_id=name, paused=True).pk
            for name, ago in ages.items()}  # fmt: skip

    def listed(query: str) -> list[str]:
        names = {pk: name for name, pk in made.items()}
        return [names[pk] for pk in rows_of(staff.get(f"/activity/{query}"))]

    assert listed("?range=hour") == ["new"]
    assert listed("?range=today") == ["new", "early"]
    assert listed("?range=yesterday") == ["late"]
    assert listed("?range=week") == ["new", "early", "late", "thursday"]
    assert listed("?from=2026-11-26T12:00&to=2026-11-28T01:00") == ["late", "thursday"]
    assert listed("?from=2026-11-28T01:00&range=yesterday") == ["new", "early"], "what is typed comes before a preset"
    assert listed("?to=2026-11-20") == ["old"]
    assert listed("?from=0001-01-01T00:00&to=9999-12-31T23:59") == list(ages)[::-1], "times that no zone can tell"
    assert listed("?from=x&to=%00&range=none") == list(ages)[::-1]
    page = text_of(staff.get("/activity/"))
    headings = re.findall(r"<h3>([^<]+)</h3>", page)
    assert headings == [
        "Today, Saturday 28 November", "Yesterday, Friday 27 November", "Thursday 26 November", "Wednesday 18 November",
    ]  # fmt: skip
    assert "From must be earlier than to." in text_of(staff.get("/activity/?from=2026-11-28&to=2026-11-27"))
    assert "time: 2026-11-26 12:00 to 2026-11-28 01:00" in text_of(
        staff.get("/activity/?from=2026-11-26T12:00&to=2026-11-28T01:00")
    )


def test_days_are_those_of_a_reader_with_local_times(staff):
    at = datetime(2026, 11, 26, 16, 0, tzinfo=UTC)
    pk = happened("pool.scaled", at, pool_id="p", paused=True).pk

    def heading() -> list[str]:
        return re.findall(r"<h3>(\w+ \d+ \w+)", text_of(staff.get("/activity/?to=2026-11-27T02:00")))

    assert heading() == ["Thursday 26 November"]
    staff.cookies["zone"] = "Asia/Tokyo"
    assert heading() == ["Thursday 26 November"], "the reader has not chosen local times"
    staff.cookies["times"] = "local"
    assert heading() == ["Friday 27 November"]
    assert rows_of(staff.get("/activity/?from=2026-11-27T01:00&to=2026-11-27T01:01")) == [pk]
    assert rows_of(staff.get("/activity/?from=2026-11-26T16:00&to=2026-11-26T16:01")) == []
    for name in ("../../etc/passwd", "Nowhere/Town", "", "America"):
        staff.cookies["zone"] = name
        assert heading() == ["Thursday 26 November"], name


def test_events_whose_time_is_not_in_the_order_of_ids_are_in_the_range(staff):
    """A transaction may write its event minutes after the moment that the event names."""
    now = timezone.now()
    late = happened("pool.scaled", now - timedelta(minutes=3), pool_id="late", paused=True).pk
    first = happened("pool.scaled", now - timedelta(minutes=9), pool_id="first", paused=True).pk
    last = happened("pool.scaled", now - timedelta(minutes=1), pool_id="last", paused=True).pk

    def listed(start: int, end: int) -> list[int]:
        query = {"from": (now - timedelta(minutes=start)).isoformat(), "to": (now - timedelta(minutes=end)).isoformat()}
        return rows_of(staff.get("/activity/", query))

    assert listed(4, 2) == [late]
    assert listed(10, 2) == [first, late]
    assert listed(2, 0) == [last]


# A list that stands still -----------------------------------------------------------------------------


def test_an_older_page_stays_the_same_while_events_arrive(staff, monkeypatch):
    pks = [happened("pool.scaled", pool_id="p", paused=True).pk for _ in range(120)][::-1]
    first = staff.get("/activity/")
    assert rows_of(first) == pks[:50]
    older = f"/activity/?before={pks[49]}"
    assert f'href="{older.removeprefix("/activity/")}"' in first.content.decode()
    assert rows_of(staff.get(older)) == pks[50:100]
    new = happened("pool.scaled", pool_id="p", paused=True).pk
    assert rows_of(staff.get(older)) == pks[50:100]
    last = staff.get(f"/activity/?before={pks[99]}")
    assert rows_of(last) == pks[100:]
    assert f"?after={pks[100]}" in last.content.decode()
    assert rows_of(staff.get(f"/activity/?after={pks[100]}")) == pks[50:100]
    assert rows_of(staff.get(f"/activity/?after={pks[50]}")) == pks[:50]
    assert rows_of(staff.get(f"/activity/?after={pks[48]}")) == [new, *pks[:49]], "near the top, the newest page"


def test_an_open_page_is_told_how_many_are_new_and_its_list_is_left_alone(staff):
    shown = happened("pool.scaled", pool_id="p", paused=True).pk
    page = staff.get("/activity/?poolId=p").content.decode()
    refresh = re.search(r'hx-get="([^"]+)"', page)
    assert refresh
    url = refresh[1].replace("&amp;", "&")
    assert url == f"/activity/?poolId=p&seen={shown}"
    for number in range(3):
        happened("pool.scaled", pool_id="p", paused=True)
        happened("container.ready", pool_id="p")
        happened("pool.scaled", pool_id="other", paused=True)
        answer = staff.get(url, headers=REFRESH)
        assert rows_of(answer) == []
        assert f"{number + 1} update{'s' if number else ''}, show" in text_of(answer)
        assert '<div id="journal" data-keep>' in text_of(answer)
    assert len(rows_of(staff.get(url))) == 4, "the address in itself shows the list"
    for _ in range(120):
        happened("pool.scaled", pool_id="p", paused=True)
    assert "99+ updates, show" in text_of(staff.get(url, headers=REFRESH))


@pytest.mark.parametrize("place", [
    "before=x", "before=-1", "before=99999999999999999999999", "after=%00", "before=1&after=1", "seen=x", "after=" + "9" * 190,
])  # fmt: skip
def test_places_that_do_not_exist_are_ignored(staff, place):
    happened("pool.scaled", pool_id="p", paused=True)
    assert staff.get(f"/activity/?{place}").status_code == 200
    assert staff.get(f"/activity/?{place}", headers=REFRESH).status_code == 200


def test_the_page_costs_few_statements_whatever_it_lists(staff, django_assert_max_num_queries):
    spec = make_sync_spec()
    for number in range(60):
        happened("pool.scaled", timezone.now() - timedelta(days=number % 7), pool_id=f"p{number}", paused=True)
    for number in range(5):
        a_save(spec, f"acme-{number}", 0)
    for query in ("", "?q=scaled", "?range=week", "?part=people"):
        with django_assert_max_num_queries(16):
            staff.get(f"/activity/{query}")


# Details and files ------------------------------------------------------------------------------------


def test_details_have_labels_in_words_and_every_row_has_them(staff):
    happened("container.claimed", tenant_id="acme", source="warm", latencyMs=320, generation=1764338400123456)
    happened("node.silent", node="n")
    page = text_of(staff.get("/activity/"))
    assert page.count("<details>") == 2
    for words in ('<dt>Took</dt> <dd class="pre">320 ms</dd>', 'Claimed <span class="mono faint">container.claimed'):
        assert words in page
    assert "1764338400123456" not in page
    assert "Hide events of this type" in page


def test_a_file_has_the_events_of_the_filters_and_the_range(staff):
    now = timezone.now()
    happened("sync.failed", now - timedelta(days=2), tenant_id="old", detail="SignatureDoesNotMatch")
    happened("sync.failed", tenant_id="new", detail="SignatureDoesNotMatch")
    happened("sync.failed", tenant_id="other", detail="timeout")
    query = "?range=hour&q=Signature"
    assert f'href="{query.replace("&", "&amp;")}&amp;format=csv"' in text_of(staff.get(f"/activity/{query}"))
    answer = staff.get(f"/activity/{query}&format=csv")
    lines = answer.content.decode().splitlines()
    assert len(lines) == 2
    assert "Save of new failed: SignatureDoesNotMatch" in lines[1]


def test_a_file_of_a_search_has_rows_beyond_the_time_of_a_page(staff, monkeypatch):
    monkeypatch.setattr(journals, "FIRST_WINDOW", 2)
    monkeypatch.setattr(journals, "BUDGET_S", -1)
    for number in range(9):
        happened("sync.failed", tenant_id=f"t{number}", detail="needle")
    assert len(staff.get("/activity/?q=needle&format=csv").content.decode().splitlines()) == 10


# What the database is asked ---------------------------------------------------------------------------


def test_migrated_events_are_marked(db):
    from importlib import import_module

    from django.apps import apps

    migration = import_module("boilerhouse.core.migrations.0011_routine_events")
    spec = make_sync_spec()
    for sent in (0, 7):
        a_save(spec, "acme", sent)
    happened("container.claimed", source="warm")
    Event.objects.update(is_routine=False)
    migration.mark(apps, None)
    assert list(Event.objects.filter(is_routine=False).order_by("id").values_list("type", flat=True)) == [
        "sync.completed", "container.claimed",
    ]  # fmt: skip
    assert Event.objects.filter(type="sync.completed", is_routine=True).count() == 1
