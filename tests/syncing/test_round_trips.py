"""Every direction, mode and pattern, with no, one and a thousand files."""

from __future__ import annotations

import hashlib
import os

import pytest

from syncing import patterns
from tests import sink_servers
from tests.pattern_meanings import FILES, MEANINGS
from tests.tenant_state import LOCATION, UID, TenantState

pytestmark = pytest.mark.any_database


def plant(tenant, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = tenant.state / name
        for parent in reversed(path.relative_to(tenant.state).parents[:-1]):
            (tenant.state / parent).mkdir(exist_ok=True)
            os.chown(tenant.state / parent, UID, UID)
        path.write_bytes(content)
        os.chown(path, UID, UID)


def read(tenant) -> dict[str, bytes]:
    return {str(p.relative_to(tenant.state)): p.read_bytes() for p in tenant.state.rglob("*") if p.is_file()}


CASES = [(pattern, "sync") for pattern in ("", *MEANINGS)] + [(pattern, "copy") for pattern in ("", "*.pt", "**/*.log")]


@sink_servers.SOME
@pytest.mark.parametrize(("pattern", "mode"), CASES)
def test_a_pattern_saves_and_restores_what_it_means(empty_sink_server, data_dir, transactional_db, pattern, mode):
    tenant = TenantState(empty_sink_server, pattern=pattern, mode=mode)
    plant(tenant, {name: name.encode() for name in FILES})
    tenant.save()
    matches = patterns.matcher(pattern) or (lambda _name: True)
    wanted = {name: name.encode() for name in FILES if matches(name)}
    assert set(empty_sink_server.keys(LOCATION)) == set(wanted)
    tenant.claim()
    assert read(tenant) == wanted

    for name in list(wanted)[:1]:
        (tenant.state / name).unlink()
        tenant.save()
        tenant.claim()
        assert (name in read(tenant)) is (mode == "copy")


@sink_servers.SOME
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_none_one_and_a_thousand_files(empty_sink_server, data_dir, transactional_db, count):
    tenant = TenantState(empty_sink_server)
    files = {f"d{number % 7}/f{number}": hashlib.sha256(str(number).encode()).digest() * 8 for number in range(count)}
    plant(tenant, files)
    tenant.save()
    tenant.lose_host()
    tenant.claim()
    assert read(tenant) == files


def test_upload_only_never_restores_and_never_deletes(empty_sink_server, data_dir, transactional_db):
    tenant = TenantState(empty_sink_server, direction="upload", mode="copy")
    tenant.write(a="1")
    tenant.save()
    tenant.claim()
    assert tenant.look() == {}
    tenant.write(b="2")
    tenant.save()
    assert set(empty_sink_server.keys(LOCATION)) == {"a", "b"}


def test_download_only_is_never_written(empty_sink_server, data_dir, transactional_db):
    empty_sink_server.sink().put(f"{LOCATION}/given", b"from outside")
    tenant = TenantState(empty_sink_server, direction="download", mode="copy")
    assert tenant.look() == {"given": "from outside"}
    tenant.write(given="changed", own="x")
    tenant.save()
    assert empty_sink_server.sink().get(f"{LOCATION}/given", 15) == b"from outside"
    assert set(empty_sink_server.keys(LOCATION)) == {"given"}


@pytest.mark.long
def test_half_a_gigabyte(empty_sink_server, data_dir, transactional_db):
    tenant = TenantState(empty_sink_server)
    with (tenant.state / "big").open("wb") as file:
        for _ in range(500):
            file.write(os.urandom(1_000_000))
    os.chown(tenant.state / "big", UID, UID)

    def digest() -> str:
        with (tenant.state / "big").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    before = digest()
    tenant.save()
    tenant.lose_host()
    tenant.claim()
    assert digest() == before
