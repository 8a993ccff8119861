"""The scripts that run all tests: which failures are retried, and that a test that passes then is reported."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.any_database, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
PASSES = "def test_passes(): note('passes')\n"
FAILS = "def test_fails_{}(): note('fails'); assert not 'always'\n"
FLAKY = "def test_flaky(): assert note('flaky') > 1, 'only the first time'\n"
KILLED = "def test_is_killed(): note('killed'); os.kill(os.getpid(), 9)\n"
NOTE = """
import os, pathlib, pytest
def note(name):
    path = pathlib.Path(__file__).with_name(name)
    path.write_text(path.read_text() + 'x' if path.exists() else 'x')
    return len(path.read_text())
"""
SETTINGS = """
[tool.pytest.ini_options]
markers = ["long", "any_database", "postgresql", "browser"]
"""
IN_A_BROWSER = "@pytest.mark.browser\n@pytest.mark.any_database\n"
STAND_IN = '#!/bin/sh\nexec "$@"\n'


class Parts:
    """The scripts next to test files of a few lines."""

    def __init__(self, root: Path) -> None:
        self.root, self.tests = root, root / "tests" / "core"
        for folder in ("core", "pools", "syncing", "tenants", "dashboard", "stack", "engine"):
            (root / "tests" / folder).mkdir(parents=True)
            (root / "tests" / folder / f"test_{folder}.py").write_text("def test_nothing(): pass\n")
        (root / "tests/stack/test_page.py").write_text(f"import pytest\n{IN_A_BROWSER}def test_nothing(): pass\n")
        (root / "scripts").mkdir()
        for name in ("test.sh", "test-part.sh"):
            shutil.copy(ROOT / "scripts" / name, root / "scripts" / name)
        for name in ("postgresql.sh", "engine.sh"):
            (root / "scripts" / name).write_text(STAND_IN)
            (root / "scripts" / name).chmod(0o755)
        (root / ".venv").symlink_to((ROOT / ".venv").resolve())
        (root / "pyproject.toml").write_text(SETTINGS)

    def run(
        self, tests: str, *arguments: str, script: str = "test-part.sh", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        (self.tests / "test_core.py").write_text(NOTE + tests)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BOILERHOUSE_", "PYTEST_"))}
        return subprocess.run(
            [self.root / "scripts" / script, *arguments], capture_output=True, text=True, check=False, timeout=120,
            env={**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment},
        )  # fmt: skip

    def part(self, tests: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run(tests, *arguments, "in-process-sqlite", **environment)

    def count(self, name: str) -> int:
        """How often tests noted this name."""
        return len((self.tests / name).read_text()) if (self.tests / name).exists() else 0


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path)


def test_who_passes_only_the_second_time_is_named_last(parts):
    done = parts.part(PASSES + FLAKY + "@pytest.mark.long\n" + FAILS.format(1))
    assert done.returncode == 0, done.stdout
    assert "only the first time" in done.stdout
    last = "== UNSTEADY, passed only when run once more: tests/core/test_core.py::test_flaky (in-process-sqlite)"
    assert done.stdout.splitlines()[-1] == last
    assert (parts.count("passes"), parts.count("flaky"), parts.count("fails")) == (1, 2, 0)

    done = parts.part(PASSES + FLAKY)
    assert done.returncode == 0
    assert "UNSTEADY" not in done.stdout, "a note of another run"


def test_who_fails_twice_fails_the_part(parts):
    done = parts.part("".join(FAILS.format(n) for n in range(2)) + FLAKY)
    assert done.returncode == 1
    assert (parts.count("fails"), parts.count("flaky")) == (4, 2)
    assert "FAILED" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("tests", "arguments", "environment", "noted"),
    [
        ("".join(FAILS.format(n) for n in range(4)), [], {}, {"fails": 4}),
        (FAILS.format(1) + KILLED, [], {}, {"fails": 1, "killed": 1}),
        (FLAKY + "import nothing_of_that_name\n", [], {}, {"flaky": 0}),
        (FLAKY, [], {"BOILERHOUSE_RERUN": "0"}, {"flaky": 1}),
        (FLAKY + PASSES, ["-vx"], {}, {"flaky": 1, "passes": 0}),
        (FLAKY + PASSES, [], {"PYTEST_ADDOPTS": "--maxfail=1"}, {"flaky": 1, "passes": 0}),
    ],
    ids=["four", "killed", "collection", "switched-off", "exit-first", "maxfail"],
)
def test_what_fails_the_part_at_once(parts, tests, arguments, environment, noted):
    done = parts.part(tests, *arguments, **environment)
    assert done.returncode == 1, done.stdout
    assert {name: parts.count(name) for name in noted} == noted
    assert "UNSTEADY" not in done.stdout


@pytest.mark.long  # starts pytest ten times
def test_unsteady_tests_of_all_parts_are_the_last_lines_of_all_tests(parts):
    on_sqlite = "@pytest.mark.any_database\n"
    (parts.root / "tests/stack/test_stack.py").write_text(NOTE + on_sqlite + FLAKY)
    (parts.root / "tests/stack/test_page.py").write_text(NOTE + IN_A_BROWSER + FLAKY.replace("flaky", "page"))
    (parts.root / "tests/engine/test_engine.py").write_text(NOTE + FAILS.format(1))
    done = parts.run(on_sqlite + FLAKY, script="test.sh")
    assert done.returncode != 0
    assert sorted(line.partition("more: ")[2] for line in done.stdout.splitlines()[-3:]) == [
        "tests/core/test_core.py::test_flaky (core-sqlite)",
        "tests/stack/test_page.py::test_page (pages-sqlite)",
        "tests/stack/test_stack.py::test_flaky (stack-sqlite)",
    ], done.stdout
