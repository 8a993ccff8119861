from __future__ import annotations

import subprocess

import pytest

from syncing import locations, patterns
from syncing.jail import rclone_path
from syncing.locations import Area

FILES = ["a.pt", "b.log", "sub/c.pt", "sub/d.log", "sub/x/e.log", "z/[odd].txt"]
MEANINGS = {
    "*.pt": {"a.pt"},
    "**/*.log": {"b.log", "sub/d.log", "sub/x/e.log"},
    "sub/**": {"sub/c.pt", "sub/d.log", "sub/x/e.log"},
    "sub/*.log": {"sub/d.log"},
    "*.{pt,log}": {"a.pt", "b.log"},
    "?.pt": {"a.pt"},
    "[ab].*": {"a.pt", "b.log"},
    "**": set(FILES),
    "sub/*/e.log": {"sub/x/e.log"},
}


@pytest.mark.parametrize("pattern", MEANINGS)
def test_rclone_and_we_mean_the_same_by_a_pattern(tmp_path, pattern):
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    includes = [f"--include={one}" for one in patterns.to_rclone(pattern)]
    listed = subprocess.run([rclone_path(), "lsf", "-R", "--files-only", *includes, str(tmp_path)],
                            capture_output=True, text=True, check=True, env={"RCLONE_CONFIG": "/dev/null"})  # fmt: skip
    matches = patterns.matcher(pattern)

    assert set(listed.stdout.split()) == MEANINGS[pattern]
    assert {name for name in FILES if matches(name)} == MEANINGS[pattern]


@pytest.mark.parametrize("bad", ["", "{{.*}}", "[a", "{a", "a}", "***", "/abs", "./x", "a//b", "dir/", "../x", "x\\"])
def test_patterns_that_mean_nothing_or_everything_are_refused(bad):
    assert patterns.check(bad)


@pytest.mark.parametrize(
    "bad",
    ["/x", "a//b", "../x", "a/../b", "x${tenantId}y", "${other}/", ".boilerhouse/x", ".boilerhouse-trash", "a\nb"],
)
def test_prefixes_that_could_collide_or_escape_are_refused(bad):
    assert locations.check_path(bad)


def area(template, uploads=True, downloads=False, place=("e", "b")):
    return Area(((place, template),), uploads, downloads, template)


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        (area("t/${tenantId}"), area("t/${tenantId}/logs"), True),
        (area("t/${tenantId}/a"), area("t/${tenantId}/b"), False),
        (area("t/${tenantId}/a"), area("t/alice/a"), True),
        (area("a/${tenantId}"), area("b/${tenantId}"), False),
        (area("t/${tenantId}", place=("e", "one")), area("t/${tenantId}", place=("e", "two")), False),
        (area("tenants", uploads=False, downloads=True), area("tenants/${tenantId}/state"), True),
        (area("", uploads=False, downloads=True), area("tenants/${tenantId}/state"), True),
        (area("shared", uploads=False, downloads=True), area("shared", uploads=False, downloads=True), False),
    ],
)
def test_locations_of_different_mappings_may_not_meet(one, other, conflict):
    assert bool(locations.conflict(one, [other])) is conflict
    assert bool(locations.conflict(other, [one])) is conflict


def test_the_tenants_id_is_a_whole_segment():
    assert locations.resolve("t/${tenantId}/x", "a+b@c:d.e") == "t/a+b@c:d.e/x"
