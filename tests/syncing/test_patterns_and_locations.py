from __future__ import annotations

import contextlib
import random
import subprocess
import sys

import pytest

from syncing import locations, patterns
from syncing.jail import rclone_path
from syncing.locations import Area
from tests.pattern_meanings import FILES, MEANINGS


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


PARTS = [
    "a", "b", "c", ".", "*", "*", "**", "?", "/", "/", "[ab]", "[^a]", "[b-c.]", "{a,b}", "{a*,**b}", "{a{b,},?}", "{,c}",
    "{b*/,a}", "{*,c}/", "aa/", "b?/ba/", "?a/", "\\*", "\\[", "a,b", "+", "$", "é",
]  # fmt: skip
NAMES = [
    f"{folder}{name}"
    for folder in ("", "aa/", "bc/ba/", "ca/bb/")
    for name in ("a", "b", "c", "ab", "ba", "abc", "a.c", "a,b", "é", "*", "[", "$a", "b+")
]


def invented(number):
    """A valid pattern, a different one for each number."""
    chance = random.Random(number)
    while True:
        pattern = "".join(chance.choice(PARTS) for _ in range(chance.randint(1, 6)))
        if patterns.check(pattern) is None:
            return pattern


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("names")
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(IsADirectoryError):
            (root / name).write_text("")
    return root


@pytest.mark.parametrize("number", range(60))
def test_rclone_and_we_mean_the_same_by_any_pattern(files, number):
    """rclone parses every accepted pattern without an error, with the same meaning."""
    pattern = invented(number)
    includes = [f"--include={one}" for one in patterns.to_rclone(pattern)]
    listed = subprocess.run([rclone_path(), "lsf", "-R", "--files-only", *includes, str(files)],
                            capture_output=True, text=True, env={"RCLONE_CONFIG": "/dev/null"})  # fmt: skip
    assert listed.returncode == 0, (pattern, listed.stderr)
    matches = patterns.matcher(pattern)
    assert set(listed.stdout.splitlines()) == {name for name in NAMES if matches(name) and (files / name).is_file()}, (
        pattern
    )


HOSTILE = {
    "*_*_*_*_*_*_*_*_*_*.csv": "_" * 245,
    "**/*a*a*a*a*a*a*a*a*a*b": "a/" * 100 + "a" * 200,
    "{*a,a*,?a}*{*a,a*}*{*a,a*}*{*a,a*}*{*a,a*}b": "a" * 250,
    "*a" + "?" * 90: "a" * 250,
}


@pytest.mark.parametrize("pattern", HOSTILE)
def test_no_pattern_takes_more_than_a_walk_through_the_name(pattern):
    """30 empty files took 17 s. A match that would take hours is aborted after a minute."""
    program = (
        f"from syncing import patterns; m = patterns.matcher({pattern!r}); [m({HOSTILE[pattern]!r}) for _ in range(50)]"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("length", [100, 400])
def test_a_walk_takes_a_step_for_each_character_at_most(length):
    """The steps that are not cached are the cost."""
    automaton = patterns._automaton("*_*_*?[ab]{*_,_*}*_*.csv")
    automaton._forget()
    steps = 0
    step = automaton._step

    def counted(*arguments):
        nonlocal steps
        steps += 1
        return step(*arguments)

    automaton._step = counted
    try:
        automaton.accepts("_a" * length)
    finally:
        del automaton._step
    assert 0 < steps <= 2 * length
    assert len(automaton._sets) <= patterns.MAX_KNOWN


def test_what_is_remembered_of_names_is_bounded():
    """A tenant may have any number of names, of any characters."""
    matches, chance = patterns.matcher("*a" + "?" * 40 + "[^b]"), random.Random(1)
    for _ in range(200):
        matches("".join(chance.choice("ab") for _ in range(250)))
    for begin in range(0x100, 0x4000, 200):
        matches("".join(map(chr, range(begin, begin + 200))))
    automaton = patterns._automaton("*a" + "?" * 40 + "[^b]")
    assert len(automaton._sets) <= patterns.MAX_KNOWN
    assert len(automaton._symbols) <= patterns.MAX_KNOWN
    assert matches("ba" + "c" * 41)
    assert not matches("ba" + "c" * 40)


@pytest.mark.parametrize(
    "bad",
    [
        "", "{{.*}}", "[a", "{a", "a}", "***", "/abs", "./x", "a//b", "dir/", "../x", "x\\",
        "]", "[]a]", "[a\\]b]", "[[:digit:]]", "a[/]b", "[^/]", "[^]", "[z-a]", "\\d", "\\é", "[\\d]", "[a--b]",
    ],
)  # fmt: skip
def test_patterns_that_mean_nothing_or_everything_are_refused(bad):
    """rclone reads the last ones as regular expressions, or as errors."""
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
