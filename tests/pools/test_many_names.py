"""Walking a tenant's file names is linear, and stops when the caller cancels (hazards.md#d4)."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

import pytest

from boilerhouse.process import stalls
from pools import file_names, volumes
from pools.spec import Owner
from tests.linear import given_up

OWNER = Owner(234_567, 234_567)
MANY = 8000
MOST_S = 30
"""Of processor time. Linear work takes a second or two; before, 2,000 names took 92 s."""


class Ended(Exception):
    pass


def odd(number):
    return f"{number:05}\x01{'a' * 60}"


@pytest.fixture
def staging(tmp_path):
    """As a sink returns them: their control characters are symbols."""
    for number in range(MANY):
        (tmp_path / file_names.plain(odd(number))).touch()
    return tmp_path


def census_of(path):
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return volumes.census(root, None, volumes.ANY_SIZE)
    finally:
        os.close(root)


def test_many_odd_names_of_one_directory_come_back_in_one_walk(staging):
    """2,000 of them took a claim's worker 305 s."""
    with given_up(MOST_S):
        volumes.restore_names(staging, [odd(number) for number in range(MANY)])
        seen = census_of(staging)
    assert set(seen.names) == {odd(number) for number in range(MANY)}


def test_many_files_that_went_while_they_were_saved_are_forgotten_one_by_one(staging):
    """Each was searched in the list of all."""
    volumes.restore_names(staging, [odd(number) for number in range(MANY)])
    seen = census_of(staging)
    seen.names |= {f"{number}\x01": None for number in range(500_000)}  # as if they were many more
    with given_up(MOST_S):
        for number in range(MANY):
            seen.correct(odd(number), None)
    assert (seen.files, len(seen.stamps)) == (0, 0)
    assert not any(odd(number) in seen.names for number in range(MANY))


def test_the_folders_of_many_deep_paths_are_found_in_one_walk():
    """For each file all its folders were computed."""
    deep = "/".join(["d"] * 440)
    with given_up(MOST_S):
        found = file_names.folders(f"{deep}/{number}" for number in range(200_000))
    assert len(found) == 440
    assert file_names.folders(["a/b/c", "a/d", "e"]) == {"a", "a/b"}


WALKS = {
    "census": lambda path, found: census_of(path),
    "restore_names": lambda path, found: volumes.restore_names(path, [odd(number) for number in range(MANY)]),
    "apply_mtimes": lambda path, found: volumes.apply_mtimes(path, dict.fromkeys(found, 1)),
    "dig_holes": lambda path, found: volumes.dig_holes(path, found),
    "modes": lambda path, found: volumes.apply_manifest(path, OWNER, dict.fromkeys(found, 0o600), {}, []),
    "links": lambda path, found: volumes.apply_manifest(path, OWNER, {}, {f"l{one}": "x" for one in found}, []),
    "empty": lambda path, found: volumes.apply_manifest(path, OWNER, {}, {}, [f"d{one}" for one in found]),
}


@pytest.mark.parametrize("walk", WALKS)
def test_a_walk_over_names_ends_when_who_began_it_says_so(staging, walk, monkeypatch):
    """An aborted claim kept its worker busy."""
    monkeypatch.setattr(stalls, "_LOOK_EVERY_S", 0)
    found, asked = os.listdir(staging), []

    def keep_going():
        asked.append(None)
        return len(asked) < 10

    with pytest.raises(Ended), stalls.while_going(keep_going, Ended):
        WALKS[walk](staging, found)
    assert len(asked) == 10


def test_a_move_into_a_volume_is_never_ended_half_way(tmp_path, monkeypatch, data_dir):
    """The volumes are unchanged, or have all of it."""
    from uuid import uuid4

    from tests.make import make_spec

    monkeypatch.setattr(stalls, "_LOOK_EVERY_S", 0)
    container_id = uuid4()
    volumes.prepare(container_id, OWNER.uid, make_spec())
    staged = volumes.new_staging(container_id, OWNER, "m")
    for number in range(50):
        (staged / f"d{number}").mkdir()
        (staged / f"d{number}" / "f").touch()
    target = volumes.volume_path(container_id, "state")
    (target / "d1").mkdir()
    with stalls.while_going(lambda: False, Ended):
        volumes.move_in(container_id, OWNER, staged, target, PurePosixPath(), replace=False)
    assert len(list(target.glob("*/f"))) == 50


def test_nobody_is_asked_or_told_while_a_container_stands_still(staging, monkeypatch):
    """A query to the database would make the pause longer."""
    monkeypatch.setattr(stalls, "_LOOK_EVERY_S", 0)
    told = []
    with stalls.reporting_to(lambda: told.append(1)), stalls.while_going(lambda: False, Ended), stalls.quietly():
        assert census_of(staging).files == MANY
    assert not told
