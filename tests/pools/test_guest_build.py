"""The build of the guest agent: the same bytes wherever and whenever it is made, and for arm64 where a compiler is."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.guest_agent import AGENT

pytestmark = pytest.mark.any_database
SOURCES = AGENT.parents[1]
CROSS, QEMU = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64-static")
ARM64 = 183
"""The machine of an ELF header (EM_AARCH64)."""


def built(directory: Path, *options: str, modified: int | None = None, **environment: str) -> Path:
    """The program of a copy of the sources."""
    shutil.copytree(SOURCES, directory, ignore=shutil.ignore_patterns("build"))
    for path in directory.iterdir() if modified is not None else ():
        os.utime(path, (modified, modified))
    made = subprocess.run(
        ["make", "-C", directory, *options],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return directory / "build" / "agent"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_same_sources_give_the_same_bytes_elsewhere_and_at_another_time(tmp_path):
    here = built(tmp_path / "here")
    there = built(
        tmp_path / "another place" / "deeper", modified=10**9, TZ="Asia/Tokyo", LC_ALL="C", SOURCE_DATE_EPOCH="1"
    )
    assert digest(here) == digest(there)
    assert digest(here) == digest(AGENT), "make -C guest"


def test_another_source_gives_other_bytes(tmp_path):
    """So that the digest, by which containers keep their agent, names the program."""
    directory = tmp_path / "changed"
    shutil.copytree(SOURCES, directory, ignore=shutil.ignore_patterns("build"))
    source = directory / "main.c"
    source.write_text(source.read_text() + '\nconst char added[] __attribute__((used)) = "another";\n')
    subprocess.run(["make", "-C", directory], capture_output=True, check=True)
    assert digest(directory / "build" / "agent") != digest(AGENT)


def test_it_is_built_with_glibc_too(tmp_path):
    """Its headers have other types, and each conversion that loses something is an error."""
    program = built(tmp_path / "glibc", "CC=gcc")
    version = subprocess.run([AGENT, "version"], capture_output=True, check=True).stdout
    assert subprocess.run([program, "version"], capture_output=True, check=True).stdout == version


@pytest.mark.skipif(CROSS is None, reason="needs gcc-aarch64-linux-gnu, which no bootstrap installs")
def test_it_is_built_for_arm64_without_a_warning(tmp_path):
    program = built(tmp_path / "arm64", f"CC={CROSS}")
    assert int.from_bytes(program.read_bytes()[18:20], "little") == ARM64
    if QEMU is not None:
        version = subprocess.run([AGENT, "version"], capture_output=True, check=True).stdout
        assert subprocess.run([QEMU, program, "version"], capture_output=True, check=True).stdout == version
