"""The data directory and its content are readable by their owner only, whichever process creates them."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from boilerhouse.core import privacy
from pools import volumes
from pools.spec import Owner
from syncing.sinks.local import LocalSink

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user may enter, like ``/var/lib``."""
    path = Path(tempfile.mkdtemp(prefix="bh-public-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def manage(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    gone = ("DATABASE_URL", "BOILERHOUSE_RAM_DIR", "BOILERHOUSE_LOCAL_SINK_ROOT")
    environment = {name: value for name, value in os.environ.items() if name not in gone}
    return subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), *arguments], cwd=ROOT, text=True, capture_output=True, check=False,
        env=environment | {"BOILERHOUSE_DATA_DIR": str(data)}, timeout=120, umask=0o022,
    )  # fmt: skip


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.slow
def test_a_new_data_directory_is_closed_from_its_first_moment(public):
    """The directory was 0755, the database 0644 and s3/ 0755 after ``manage.py check``."""
    data = public / "a" / "data"
    done = manage(data, "check")
    assert done.returncode == 0, done.stderr
    assert mode(data) == 0o700
    assert manage(data, "migrate", "-v", "0").returncode == 0
    (data / "s3").mkdir()
    (data / "s3").chmod(0o755)
    (data / "s3" / "state").write_text("VICTIM-PRIVATE")
    (data / "s3" / "state").chmod(0o644)
    assert manage(data, "check").returncode == 0
    open_ones = [str(path) for path in data.iterdir() if mode(path) & 0o077]
    assert open_ones == []
    assert mode(data / "boilerhouse.sqlite3") == 0o600
    data.chmod(0o711)  # each is closed by itself, too
    for path in (data / "boilerhouse.sqlite3", data / "s3" / "state", data / "keys" / "secret-key"):
        read = ["setpriv", f"--reuid={NOBODY}", "--clear-groups", "cat", str(path)]
        assert subprocess.run(read, capture_output=True, check=False).returncode != 0, path


@pytest.mark.slow
def test_the_doctor_has_nothing_against_the_data_of_an_untouched_deployment(public):
    """doctor reported a failure on a fresh deployment."""
    data = public / "data"
    assert manage(data, "migrate", "-v", "0").returncode == 0
    found = json.loads(manage(data, "doctor", "--output", "json").stdout)["findings"]
    assert {one["state"] for one in found if one["name"] == "data"} == {"ok"}, found


@pytest.mark.slow
def test_a_directory_that_is_too_open_is_closed_at_start_and_that_is_said(public):
    """A directory created beforehand with 0755 kept that mode."""
    data = public / "data"
    data.mkdir()
    (data / "boilerhouse.sqlite3").touch()
    data.chmod(0o755)
    (data / "boilerhouse.sqlite3").chmod(0o644)
    done = manage(data, "check")
    assert done.returncode == 0
    assert "closed to others" in done.stderr
    assert (mode(data), mode(data / "boilerhouse.sqlite3")) == (0o700, 0o600)
    assert "closed to others" not in manage(data, "check").stderr


def test_somebody_elses_open_directory_is_refused_with_words(public):
    """The directory belongs to another user, so it is neither changed nor used."""
    data = public / "data"
    data.mkdir()
    data.chmod(0o755)
    os.chown(data, NOBODY, NOBODY)
    done = manage(data, "check")
    assert done.returncode == 1
    assert "BOILERHOUSE_DATA_DIR" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(data.iterdir()) == []


def test_this_process_makes_closed_files(tmp_path):
    """The umask restricts files whose creation sets no mode."""
    before = os.umask(0)
    os.umask(before)
    assert before == privacy.UMASK
    (tmp_path / "f").write_text("")
    assert mode(tmp_path / "f") == 0o600


def test_what_containers_and_later_claims_must_reach_is_as_open_as_before(data_dir, tmp_path, settings):
    """The umask applies to our own files; restored directories and local sinks keep their modes."""
    from uuid import uuid4

    from tests.make import make_spec

    container = uuid4()
    volumes.prepare(container, 200_001, make_spec())
    state = volumes.volume_path(container, "state")
    os.close(volumes.descend(state, PurePosixPath("a/b"), create_for=Owner(200_001, 200_001)))
    for path in (state / "a", state / "a" / "b"):
        assert (mode(path), path.stat().st_uid) == (0o755, 200_001)
    staging = volumes.new_staging(container, Owner(200_001, 200_001), "m")
    (staging / "made" / "inner").mkdir(parents=True)
    for path in (staging / "made", staging / "made" / "inner"):
        path.chmod(0o755)  # as rclone makes them
    volumes.move_in(container, Owner(200_001, 200_001), staging, state, PurePosixPath(), replace=False)
    assert mode(state / "made" / "inner") == 0o755

    root = tmp_path / "sinks"
    root.mkdir(mode=0o700)
    sink = LocalSink(root)
    sink.put("t/alice/state/x", b"x")
    assert mode(root / "t" / "alice" / "state") == 0o755
    assert mode(root / "t" / "alice" / "state" / "x") == 0o644
