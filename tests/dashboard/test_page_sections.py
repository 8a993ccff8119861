"""An open page gets the sections that have changed, and nothing if none has."""

from __future__ import annotations

import gzip
import re
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from django.utils.http import parse_http_date

from boilerhouse.core.events import TYPES
from boilerhouse.dashboard import page_sections
from boilerhouse.operations.demo_data import filling
from pools.models import Container, Pool
from syncing.models import SyncRun, SyncSpec
from tenants.models import Assignment
from tests.make import make_pool, make_sync_spec

pytestmark = pytest.mark.any_database
ROOT = Path(__file__).resolve().parents[2]
REFRESH = {"HX-Request": "true", "HX-Target": "main"}


@pytest.fixture
def admin(client, db, data_dir):
    client.force_login(User.objects.create_superuser("ada"))
    return client


def digests(html: str) -> dict[str, str]:
    """The digest of each section by its id."""
    tags = re.findall(r"<(?:section|main|nav)\b[^>]*data-etag[^>]*>", html)
    return {re.search(r'\bid="([^"]+)"', tag)[1]: re.search(r'data-etag="(\w+)"', tag)[1] for tag in tags}


def held(shown: dict[str, str], untouched: str = "") -> dict[str, str]:
    """The headers of an open page with these digests."""
    more = {"BH-Untouched": untouched} if untouched else {}
    return {**REFRESH, "If-None-Match": f'"{".".join(shown.values())}"', **more}


def refreshed_from(html: str) -> str:
    return re.search(r'hx-get="([^"]*)"', html)[1].replace("&amp;", "&")


def live_pages() -> list[str]:
    pool, spec = Pool.objects.order_by("pk").first(), SyncSpec.objects.order_by("pk").first()
    container = Container.objects.filter(state="claimed").order_by("pk").first()
    tenant = Assignment.objects.live().order_by("pk").first()
    run = SyncRun.objects.filter(state="succeeded").order_by("-pk").first()
    return [
        "/", "/pools/", f"/pools/{pool.pk}/", f"/pools/{pool.pk}/?tab=timeline", "/containers/",
        f"/containers/{container.pk}/", "/tenants/", f"/tenants/{tenant.tenant_id}/", "/sync/", "/sync/specs/",
        f"/sync/specs/{spec.pk}/", f"/sync/runs/{run.pk}/", "/workloads/", f"/workloads/{pool.workload_id}/",
        "/activity/", "/settings/", "/settings/changes/", "/settings/account/",
    ]  # fmt: skip


def test_a_refresh_that_finds_nothing_changed_is_304_on_every_page(admin, monkeypatch):
    """Also when some seconds have passed: the browser counts ages itself.

    The seconds are between two steps of charts (``time_steps``), at which these do change.
    """
    began = timezone.now().replace(second=1, microsecond=0)
    at = [began]
    monkeypatch.setattr("django.utils.timezone.now", lambda: at[0])
    monkeypatch.setattr("boilerhouse.core.clock.now", lambda: at[0])
    filling.fill(now=began, days=1)
    changed = {}
    for path in live_pages():
        at[0] = began
        html = admin.get(path).content.decode()
        shown = digests(html)
        assert {"main", "nav"} < set(shown), path
        # A log or a list that stands still is in the page, and not in its refresh.
        shown |= digests(admin.get(refreshed_from(html), headers=held(shown)).content.decode())
        at[0] = began + timedelta(seconds=3)
        later = admin.get(refreshed_from(html), headers=held(shown))
        if later.status_code != 304:
            changed[path] = digests(later.content.decode())
        assert later.status_code != 304 or later.content == b""
    assert changed == {}


def test_a_refresh_has_the_sections_that_differ_and_a_place_for_the_others(admin):
    pool = make_pool("p1")
    make_sync_spec(pool, id="s1")
    html = admin.get("/pools/p1/").content.decode()
    shown = digests(html)
    Pool.objects.filter(pk="p1").update(name="renamed")
    part = admin.get("/pools/p1/", headers=held(shown))
    text = part.content.decode()
    fresh = digests(text)
    assert part.status_code == 200
    assert set(fresh) == {"main", "s-f-h"}  # what surrounds the sections, and Pool with the name
    assert "renamed" in text
    assert '<section id="s-c-h" data-same></section>' in text
    assert len(part.content) < len(admin.get("/pools/p1/", headers=REFRESH).content) * 2 / 3
    assert admin.get("/pools/p1/", headers=held(shown | fresh)).status_code == 304


def test_what_no_event_has_touched_is_not_sent(admin):
    make_pool("p1")
    shown = digests(admin.get("/pools/p1/").content.decode())
    Pool.objects.filter(pk="p1").update(min_idle=1, max_size=7)
    text = admin.get("/pools/p1/", headers=held(shown, "s-s-h s-c-h")).content.decode()
    assert '<section id="s-s-h" data-same></section>' in text
    assert "s-f-h" in digests(text)
    everything = " ".join(shown)
    assert admin.get("/pools/p1/", headers=held(shown, everything)).status_code == 304


def test_sections_have_ids_of_their_own_and_keep_their_content(admin):
    filling.fill(days=1)
    for path in live_pages():
        html = admin.get(path).content.decode()
        main = html[html.index("<main") : html.index("</main>")]
        parts = page_sections.split(main)
        ids = [part.id for part in parts if isinstance(part, page_sections.Section)]
        assert len(ids) == len(set(ids)), path
        assert "".join(part if isinstance(part, str) else part.html for part in parts) == main, path
        assert main.count("<section") >= len(ids) > 0, path


def test_sections_are_those_of_main_and_not_those_within_others():
    main = (
        '<main><p>a</p><section id="x" title="1 > 0"><section id="y"></section></section>'
        '<section aria-labelledby="z"></section><section class="card">nameless</section></main>'
    )
    _, x, between, z, last = page_sections.split(main)
    assert (x.id, between, z.id, last) == ("x", "", "s-z", '<section class="card">nameless</section></main>')
    assert x.html.count("section id") == 2
    assert z.marked.startswith('<section id="s-z" data-etag="')


def test_a_digest_is_that_of_what_is_shown_and_not_of_the_moment():
    age = '<p><time datetime="2026-01-01" title="then" data-rel="ago">{}</time>, {}</p><input name="csrfmiddlewaretoken" value="{}">'
    assert page_sections.digest_of(age.format("3 s ago", "a", "x")) == page_sections.digest_of(
        age.format("9 s ago", "a", "y")
    )
    assert page_sections.digest_of(age.format("3 s ago", "a", "x")) != page_sections.digest_of(
        age.format("3 s ago", "b", "x")
    )


def test_the_time_of_reading_is_no_part_of_what_is_shown_and_goes_with_each_answer(admin):
    make_pool("p1")
    html = admin.get("/").content.decode()
    one = re.search(r"<time [^>]*data-as-of>[^<]*", html)[0]
    later = html.replace(one, one.replace("T", "T1").replace("UTC", "later"))
    assert page_sections.digest_of(html) == page_sections.digest_of(later)
    unchanged = admin.get("/", headers=held(digests(html)))
    assert unchanged.status_code == 304
    assert parse_http_date(unchanged["Date"]) <= time.time()


def test_forms_that_are_not_refreshed_are_left_as_they_are(admin):
    assert "data-etag" not in admin.get("/pools/new").content.decode()


def test_pages_are_asked_for_again_and_never_shared(admin):
    make_pool("p1")
    page = admin.get("/pools/p1/")
    assert page["Cache-Control"] == "private, no-cache"
    assert "BH-Untouched" in page["Vary"]
    assert "ETag" not in page  # whole pages hold tokens
    assert admin.get("/pools/p1/", headers=REFRESH)["ETag"].count(".") > 1


def test_what_changes_a_section_is_named_by_types_of_events():
    """A misspelt word would leave the section without updates until the next look at everything."""
    known = {"*"} | TYPES | {type.split(".")[0] for type in TYPES}
    seen = 0
    for template in ROOT.glob("templates/**/*.html"):
        text = template.read_text()
        for words in re.findall(r'data-on="([^{"]*)"|block changed_by %}([^{]*){%', text):
            seen += 1
            assert set("".join(words).split()) <= known, template
    assert seen > 8


def test_a_first_visit_and_a_refresh_are_light(admin):
    """Bytes of bodies, of the rows of the demo: a wide margin is left to heads and to longer lists."""
    filling.fill(days=1)
    browser = {"Accept-Encoding": "gzip"}
    for path in live_pages():
        answer = admin.get(path, headers=browser)
        html = gzip.decompress(answer.content).decode()
        head = html[: html.index("</head>")]
        files = re.findall(
            r'<script[^>]*? src="([^"]+)"|<link[^>]*?rel="(?:stylesheet|preload)"[^>]*?href="([^"]+)"', head
        )
        assert len(files) >= 8
        loaded = [b"".join(admin.get(script or link, headers=browser).streaming_content) for script, link in files]
        total = len(answer.content) + sum(map(len, loaded))
        assert total < 100_000, (path, total)
    shown = digests(gzip.decompress(admin.get("/", headers=browser).content).decode())
    run = SyncRun.objects.filter(state="succeeded").order_by("-pk").first()
    SyncRun.objects.create(
        spec=run.spec, tenant_id=run.tenant_id, generation=run.generation, direction="upload", trigger="interval",
        state="running", started_at=timezone.now(), progress={"bytes": 5},
    )  # fmt: skip
    part = admin.get("/", headers={**held(shown), **browser})
    assert part.status_code == 200
    assert len(part.content) < 8000
