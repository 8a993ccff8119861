from __future__ import annotations

import stat
import threading

import pytest
from django.utils import timezone

from boilerhouse.core import ids, keys
from boilerhouse.core.api_keys import create_key, find_key
from boilerhouse.core.models import ApiKey, Role


def test_uuid7_sorts_by_time_and_says_its_version():
    made = [ids.uuid7() for _ in range(100)]

    assert len(set(made)) == 100
    assert all(value.version == 7 for value in made)
    assert sorted(v.int >> 80 for v in made) == [v.int >> 80 for v in made]


@pytest.mark.parametrize("good", ["a", "tg-123", "user@x", "telegram:1310459686", "A.b_c", "0" * 128])
def test_tenant_ids_that_people_use_are_accepted(good):
    assert ids.TENANT_ID.match(good)


@pytest.mark.parametrize("bad", ["", ".", "..", "-a", "a/b", "a b", "a\n", "a\0", "ä", "a" * 129, "../etc"])
def test_tenant_ids_that_could_leave_a_path_are_refused(bad):
    assert not ids.TENANT_ID.match(bad)


def test_two_processes_that_start_at_once_agree_on_a_key(tmp_path):
    found = []
    threads = [threading.Thread(target=lambda: found.append(keys.stored(tmp_path, "k"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(found)) == 1
    assert stat.S_IMODE((tmp_path / "keys" / "k").stat().st_mode) == 0o600


def test_a_key_is_found_by_itself_and_kept_only_as_a_hash(db):
    row, key = create_key(name="ci", role=Role.ADMIN)

    assert find_key(key) == row
    assert key not in str(ApiKey.objects.values_list().get())


@pytest.mark.parametrize("change", [lambda k: k[:-1] + ("0" if k[-1] != "0" else "1"), lambda k: k + "x", lambda k: ""])
def test_a_key_with_a_wrong_checksum_never_reaches_the_database(db, django_assert_num_queries, change):
    _, key = create_key(name="ci", role=Role.ADMIN)

    with django_assert_num_queries(0):
        assert find_key(change(key)) is None


def test_revoked_and_expired_keys_are_dead(db):
    revoked, revoked_key = create_key(name="a", role=Role.ADMIN)
    _, expired_key = create_key(name="b", role=Role.ADMIN, expires_at=timezone.now())
    ApiKey.objects.filter(pk=revoked.pk).update(revoked_at=timezone.now())

    assert find_key(revoked_key) is None
    assert find_key(expired_key) is None
