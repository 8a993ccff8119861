"""The page of a node: parts that load by themselves, the checks, and backups."""

from __future__ import annotations

import shutil
import threading
from typing import Any

import pytest
from django.contrib.auth.models import Group, User

from boilerhouse.core.models import AuditEntry
from boilerhouse.dashboard.pages import node
from boilerhouse.operations import archives, doctor, kept_backups, node_report
from pools.errors import EngineUnavailable
from tests.make import make_container, make_pool, make_workload
from tests.pages import text_of

PATH = "/settings/node/"
AS_PART = {"HX-Request": "true", "HX-Target": "part-x"}


@pytest.fixture
def operator(client, db, data_dir, fake_engine):
    user = User.objects.create_user("olga", password="a long password", is_staff=True)
    user.groups.add(Group.objects.get_or_create(name="operator")[0])
    client.force_login(user)
    return client


@pytest.fixture
def admin(client, db, data_dir, fake_engine):
    client.force_login(User.objects.create_superuser("ada"))
    return client


def part(client: Any, name: str) -> str:
    answer = client.get(f"{PATH}{name}", headers=AS_PART)
    assert answer.status_code == 200
    assert answer["Cache-Control"] == "no-store"
    text = text_of(answer)
    assert "<html" not in text
    return text


def test_the_page_asks_nothing_slow_and_its_parts_load_by_themselves(operator, monkeypatch):
    def must_not(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(node, "get_runtime", must_not)
    monkeypatch.setattr(doctor, "examine", must_not)
    page = text_of(operator.get(PATH))
    for name in ("now", "engine", "images"):
        assert f'hx-get="{PATH}{name}" hx-trigger="load' in page
    assert f'hx-get="{PATH}checks" hx-trigger' not in page, "the checks ask sinks: only on request"
    for name in ("now", "engine", "images", "checks"):
        assert f'<form class="inline" method="get" action="{PATH}{name}">' in page, "without scripts"


@pytest.mark.parametrize("name", ["now", "engine", "images"])
def test_without_scripts_a_part_is_the_page_with_it(operator, name):
    page = text_of(operator.get(PATH + name))
    assert "<h1>Node" in page
    assert f'id="part-{name}" data-part >' in page
    assert "Loading." in page, "the others still load"


def test_what_is_used_now_is_of_this_machine(operator):
    make_container(make_pool("p"))
    text = part(operator, "now")
    whole = shutil.disk_usage("/").total
    assert whole > 0
    for words in ("CPU", "Memory", "Disk of the data directory", "free", "1 idle"):
        assert words in text
    now = node_report.now()
    assert 0 <= now.cpu_percent <= 100
    assert 0 < now.memory.used < now.memory.whole
    assert now.disk.free == pytest.approx(shutil.disk_usage(kept_backups.data_dir()).free, rel=0.2)


def test_images_are_listed_once_each_with_who_uses_them(operator, fake_engine):
    busy = make_workload("busy", image="shared:1")
    make_workload("other", image="shared:1")
    make_workload("gone", image="absent:1")
    fake_engine.absent.add("absent:1")
    pool = make_pool("p", workload=busy)
    for _ in range(2):
        make_container(pool)
    rows = {row.name: row for row in node_report.images()}
    assert rows["shared:1"].workloads == {"busy", "other"}
    assert rows["shared:1"].containers == 2
    assert rows["shared:1"].size_bytes > 0
    assert not rows["absent:1"].id
    text = part(operator, "images")
    assert text.count(">shared:1<") == 1
    assert "Not on this node" in text
    assert 'href="/workloads/busy/"' in text


@pytest.mark.parametrize("name", ["engine", "images"])
def test_a_part_without_an_engine_says_so_and_the_rest_stays(operator, monkeypatch, name):
    make_workload("w")

    def down() -> Any:
        raise EngineUnavailable("The engine does not answer.")

    monkeypatch.setattr(node, "get_runtime", down)
    monkeypatch.setattr(node_report, "get_runtime", down)
    assert "This part could not be loaded: The engine does not answer." in part(operator, name)
    assert operator.get(PATH).status_code == 200
    assert operator.get(PATH + name).status_code == 200


def test_checks_show_failures_first_with_their_cure(operator, monkeypatch):
    found = [
        doctor.Finding("clock", doctor.OK, "in time"),
        doctor.Finding("sinks", doctor.FAILURE, "s: denied", "Change the key."),
        doctor.Finding("engine", doctor.WARN, "live-restore is off", "Turn it on."),
    ]
    monkeypatch.setattr(doctor, "examine", lambda: found)
    text = part(operator, "checks")
    assert "1 failed, 1 warning, 1 ok." in text
    assert text.index("s: denied") < text.index("live-restore is off") < text.index("in time")
    assert "Change the key." in text


def test_checks_run_once_at_a_time(operator, monkeypatch):
    begun, end = threading.Event(), threading.Event()

    def examine() -> list[Any]:
        begun.set()
        end.wait(20)
        return []

    monkeypatch.setattr(doctor, "examine", examine)
    first = threading.Thread(target=node._checks)
    first.start()
    assert begun.wait(20)
    assert "The checks are already running." in part(operator, "checks")
    end.set()
    first.join()
    monkeypatch.setattr(doctor, "examine", list)
    assert "0 failed" in part(operator, "checks")


def test_a_part_that_is_none_is_not_found(operator):
    assert operator.get(PATH + "secrets").status_code == 404


def test_an_admin_takes_a_backup_that_can_be_read(admin):
    assert "No backups here yet" in text_of(admin.get(PATH))
    page = text_of(admin.post(PATH + "backup", follow=True, headers={"Referer": f"http://testserver{PATH}"}))
    [backup] = kept_backups.all_backups()
    assert f"Backup {backup.name} taken" in page
    assert f">{backup.name}<" in page
    path = kept_backups.directory() / backup.name
    assert path.stat().st_mode & 0o077 == 0
    assert archives.Archive(path).labels
    entry = AuditEntry.objects.get(action="backup.take")
    assert (entry.actor, entry.object_id) == ("user ada", backup.name)


def test_an_operator_takes_no_backup(operator):
    assert operator.post(PATH + "backup").status_code == 403
    assert "Back up now" not in text_of(operator.get(PATH))


def test_only_the_newest_backups_are_kept_and_files_of_others_stay(admin):
    admin.post(PATH + "backup")
    [first] = kept_backups.all_backups()
    directory = kept_backups.directory()
    (directory / "mine.zip").write_text("by hand")
    for number in range(kept_backups.KEPT + 2):
        shutil.copy2(directory / first.name, directory / f"boilerhouse-2020010{number // 10}-00000{number % 10}.zip")
    (directory / first.name).unlink()
    admin.post(PATH + "backup")
    kept = kept_backups.all_backups()
    assert len(kept) == kept_backups.KEPT
    assert kept[0].taken_at > first.taken_at
    assert (directory / "mine.zip").exists()


def test_a_backup_that_cannot_be_written_says_why_and_is_not_recorded(admin, data_dir):
    (data_dir / "backups").write_text("in the way")
    page = text_of(admin.post(PATH + "backup", follow=True, headers={"Referer": f"http://testserver{PATH}"}))
    assert "could not be written" in page
    assert not AuditEntry.objects.exists()
