"""What comes back is what was saved, to the byte and the bit, and what cannot come back is not said to be saved."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from pools.names import show
from syncing import errors
from syncing.locations import marker_key
from syncing.markers import Marker
from tests import far_ends
from tests.syncing.test_exactly_the_last_save import LOCATION, UID, Tenant

pytestmark = pytest.mark.any_database

COMPOSED, DECOMPOSED = "\u00fc", "u\u0308"


@pytest.fixture
def tenant(far_end, data_dir, transactional_db):
    return Tenant(far_end)


def put(tenant, name: bytes | str, content: bytes = b"") -> bytes:
    """A file, and the directories above it, as the container's user would make them; returns its path."""
    path = os.fsencode(tenant.state)
    *above, last = os.fsencode(name).split(b"/")
    for part in above:
        path += b"/" + part
        if not os.path.isdir(path):
            os.mkdir(path, 0o755)
            os.chown(path, UID, UID)
    path += b"/" + last
    with open(path, "wb") as file:
        file.write(content)
    os.chown(path, UID, UID)
    return path


def look(tenant) -> dict[bytes, bytes]:
    """Every file's content, by its path in bytes."""
    top, found = os.fsencode(tenant.state), {}
    for directory, _, files in os.walk(top):
        for name in files:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                with open(path, "rb") as file:
                    found[os.path.relpath(path, top)] = file.read()
    return found


def forgets(far_end) -> None:
    """Afterwards an embedded S3 holds nothing in memory: it names and times what it reads from its disk."""
    if isinstance(far_end, far_ends.RcloneS3):
        far_end.server.stop()
        far_end.server.start()


# Names --------------------------------------------------------------------------------------------------


def test_both_unicode_forms_of_a_name_live_side_by_side(tenant):
    """B29a, S6: NFC and NFD twins in one directory, of the same size and of different ones, and as directories."""
    put(tenant, COMPOSED, b"one")
    put(tenant, DECOMPOSED, b"two")
    put(tenant, f"dir-{COMPOSED}/x", b"composed")
    put(tenant, f"dir-{DECOMPOSED}/x", b"decomposed, longer")
    before = look(tenant)
    tenant.save()
    tenant.lose_host()
    tenant.claim()
    assert look(tenant) == before

    os.remove(tenant.state / COMPOSED)
    tenant.save()
    tenant.claim()
    assert look(tenant) == {name: was for name, was in before.items() if name != COMPOSED.encode()}


def test_a_rename_from_one_unicode_form_to_the_other_is_a_rename(tenant):
    """S6: the name that comes back is the new one."""
    os.rename(put(tenant, "\u00e9", b"one"), tenant.state / "e\u0301")
    put(tenant, "\u00e9", b"one")
    tenant.remove("e\u0301")
    tenant.save()
    os.rename(tenant.state / "\u00e9", tenant.state / "e\u0301")
    tenant.save()
    tenant.claim()

    assert look(tenant) == {"e\u0301".encode(): b"one"}
    assert set(tenant.far_end.keys(LOCATION)) == {"e\u0301"}


ODD = [
    b"bad\xff\xfe", b"caf\xe9", "caf\u00e9".encode(), b"a:b=c,d\"\xf6", b"d\xffr/in\x02", b"d\xffr/\xc0",
    b"ctl\x01\x7f", "sym\u2421bol".encode(), b"sym\x7fbol", "\u201bFF".encode(), "\u201b\u201bx".encode(),
    "\uff0f\uff0e".encode(), b"tab\there", b"trail. ", "\u9700\u2400".encode(), b"new\nline", b"x\xf0\x9f",
]  # fmt: skip


def test_names_that_sinks_spell_in_their_own_way_come_back_byte_for_byte(tenant):
    """B29b: invalid UTF-8, control characters and rclone's own signs, also after the server forgot, and saved again."""
    names = [name for name in ODD if not (isinstance(tenant.far_end, far_ends.MotoS3) and b"\n" in name)]
    for number, name in enumerate(names):
        path = put(tenant, name, b"%d" % number)
        os.utime(path, ns=(1_600_000_000_123_456_789, 1_600_000_000_123_456_789))
    os.mkdir(os.fsencode(tenant.state) + b"/empty\xff", 0o755)
    before = look(tenant)
    tenant.save()
    forgets(tenant.far_end)
    keys = tenant.far_end.keys(LOCATION)
    for _ in range(2):
        tenant.lose_host()
        tenant.claim()
        assert look(tenant) == before
        assert os.path.isdir(os.fsencode(tenant.state) + b"/empty\xff")
        tenant.save()
        forgets(tenant.far_end)
        assert tenant.far_end.keys(LOCATION) == keys, "nothing new, and nothing gone"

    os.remove(os.fsencode(tenant.state) + b"/bad\xff\xfe")
    put(tenant, b"caf\xe9", b"changed")
    tenant.save()
    forgets(tenant.far_end)
    tenant.claim()
    assert look(tenant) == {**{n: was for n, was in before.items() if n != b"bad\xff\xfe"}, b"caf\xe9": b"changed"}


def test_a_name_that_cannot_be_told_from_part_of_another_fails_by_its_name(tenant):
    """B29b: at servers that are rclone a lone byte of another name's letter has no spelling of its own."""
    put(tenant, b"\xbc", b"1")
    put(tenant, COMPOSED, b"2")  # b"\xc3\xbc"
    if isinstance(tenant.far_end, far_ends.RcloneS3 | far_ends.WebDav):
        with pytest.raises(errors.Unsaveable, match=r"'\\udcbc'"):
            tenant.save()
        assert not tenant.far_end.keys(LOCATION)
    else:
        tenant.save()
        tenant.claim()
        assert look(tenant) == {b"\xbc": b"1", COMPOSED.encode(): b"2"}


def test_a_server_that_merges_unicode_forms_is_found_by_the_save_which_names_both(data_dir, transactional_db, tmp_path):
    """B29c: the words name what collides, and look-alikes can be told apart in them; what is right is not named."""
    far_end = far_ends.WebDav(tmp_path, more=())
    try:
        tenant = Tenant(far_end)
        for name in ("right", "new\nline", b"\xff", "\u00f6", COMPOSED, DECOMPOSED):
            put(tenant, name, b"same")
        with pytest.raises(errors.SyncFailed) as raised:
            tenant.save()
    finally:
        far_end.stop()
    assert "\\xfc" in raised.value.detail
    assert "u\\u0308" in raised.value.detail
    assert not [name for name in ("right", "line", "udcff", "f6") if name in raised.value.detail]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a b", "a b"),
        (COMPOSED, "\u00fc (\\xfc)"),
        (DECOMPOSED, "u\u0308 (u\\u0308)"),
        ("x\n", "x\\n"),
        ("\udcff", "\\udcff"),
    ],
)
def test_names_in_words(name, shown):
    """B29c."""
    assert show(name) == shown


@pytest.mark.parametrize("state", ["closed", "open"])
def test_what_an_older_client_saved_at_the_embedded_s3_is_found_under_its_names(tenant, state):
    """B29b: it listed keys as it had put them, which is not how the server lists them once it has forgotten."""
    if not isinstance(tenant.far_end, far_ends.RcloneS3):
        pytest.skip("only there are keys listed in two ways")
    put(tenant, b"bad\xff\xfe", b"1")
    put(tenant, b"ctl\x01\x7f", b"22")
    before = look(tenant)
    tenant.save()
    key = marker_key(LOCATION)
    marker = Marker.load(tenant.sink.get(key, 15))
    old = replace(marker, names={"bad\u201bFF\u201bFE": 1, "ctl\x01\x7f": 2}, state=state)
    tenant.sink.put(key, old.dump())
    forgets(tenant.far_end)
    tenant.claim()
    assert look(tenant) == before


# Modes --------------------------------------------------------------------------------------------------


def modes(tenant) -> dict[str, int]:
    """Every file's and directory's permission bits, by its path; the mapping's own directory is ``.``."""
    found = {".": tenant.state.stat().st_mode & 0o7777}
    for directory, folders, files in os.walk(tenant.state):
        for name in (*folders, *files):
            path = os.path.join(directory, name)
            found[os.path.relpath(path, tenant.state)] = os.lstat(path).st_mode & 0o7777
    return found


def closed_things(tenant) -> dict[str, int]:
    """Files and directories that their owner may not read; their modes."""
    for name in ("g/sub/b", "closed/in", "zero", "plain"):
        put(tenant, name, name.encode())
    for name, mode in {"g/sub/b": 0, "g/sub": 0o555, "g": 0o555, "closed": 0, "zero": 0}.items():
        (tenant.state / name).chmod(mode)
    return modes(tenant)


def test_a_save_changes_no_mode_on_disk_also_when_it_failed(tenant, monkeypatch):
    """B18b: refused at the first try, cut in the middle, and then well: all modes are as the tenant set them."""
    before = closed_things(tenant)
    with monkeypatch.context() as patched:
        patched.setattr(type(tenant.sink), "put", denied)
        patched.setattr(type(tenant.sink), "put_if", denied, raising=False)
        with pytest.raises(errors.SinkDenied):
            tenant.save()
    assert modes(tenant) == before
    for place in ("save.marker-open", "save.uploaded"):
        tenant.cut(place)
        assert modes(tenant) == before
    tenant.save()
    assert modes(tenant) == before

    tenant.lose_host()
    tenant.claim()
    assert modes(tenant) == before
    assert look(tenant)[b"closed/in"] == b"closed/in"


def denied(*_: object) -> str:
    raise errors.SinkDenied("403")


def test_a_periodic_save_reads_what_its_owner_closed(tenant, monkeypatch):
    """B46: ``mkdir -m 0000 d`` in a live container fails no save, and is open to nobody during it."""
    before = closed_things(tenant)
    site = tenant.site
    monkeypatch.setattr(tenant, "site", lambda lock: replace(site(lock), is_stopped=False))
    tenant.save()
    assert modes(tenant) == before
    monkeypatch.undo()
    tenant.lose_host()
    tenant.claim()
    assert modes(tenant) == before
    assert look(tenant)[b"closed/in"] == b"closed/in"
