"""The passwd and group files of a container whose user has a name, for any content of the image's own files."""

from __future__ import annotations

import io
import subprocess
import tarfile
import uuid

import pytest

from pools import accounts, host, mounts
from pools.errors import CannotMount
from pools.runtime import get_runtime
from pools.runtime.base import Image, Tmpfs
from pools.spec import Owner, User, WorkloadSpec

pytestmark = [pytest.mark.any_database, pytest.mark.django_db, pytest.mark.slow]
SPEC = WorkloadSpec("i", user=User(gid=0, groups=(44, 6, 7), name="postgres", home="/state"))
PASSWD = b"root:x:0:0:root:/root:/bin/bash\npostgres:x:102:105::/var/lib/postgresql:/bin/bash\nold:x:200001:5::/:/x"


def of(**over) -> WorkloadSpec:
    return WorkloadSpec("i", user=User(**{"name": "postgres", "home": "/state", **over}))


def test_the_users_line_comes_first_and_in_the_place_of_its_name():
    """Look-ups by name and by number find our entry; the image's line for the same number follows it."""
    assert accounts.passwd(PASSWD, of(), Owner(200_001, 200_001)).splitlines() == [
        b"postgres:x:200001:200001:postgres:/state:/bin/sh",
        b"root:x:0:0:root:/root:/bin/bash",
        b"old:x:200001:5::/:/x",
    ]
    assert accounts.passwd(b"", of(home="/ä"), Owner(1, 0)) == "postgres:x:1:0:postgres:/ä:/bin/sh\n".encode()


def test_each_group_has_a_name():
    """The image's name if it has one; `id` and `groups` would fail otherwise."""
    found = b"root:x:0:\nvideo:x:44:x,y\npostgres:x:105:\nbroken\ngid-7:x:9:\n"
    assert accounts.group(found, SPEC, Owner(200_001, 0)).splitlines() == [
        b"gid-6:x:6:", b"gid-7:x:7:", b"root:x:0:", b"video:x:44:x,y", b"postgres:x:105:", b"broken",
    ]  # fmt: skip
    assert accounts.group(found, of(), Owner(200_001, 200_001)).splitlines() == [
        b"postgres:x:200001:", b"root:x:0:", b"video:x:44:x,y", b"broken", b"gid-7:x:9:",
    ]  # fmt: skip
    assert accounts.group(b"", of(gid=0), Owner(200_001, 0)) == b"root:x:0:\n"


@pytest.mark.parametrize("odd", [b"\xff\xfe\0a\0:\n", b"no colon", b"a:b\r\n::::\r\n", b"\n\n", b"+::::::\n"])
def test_lines_that_are_none_pass_through(odd):
    """An image's file is read as bytes; only names and numbers of groups are parsed."""
    for make in (accounts.passwd, accounts.group):
        made = make(odd, of(), Owner(1, 1))
        assert made.startswith(b"postgres:x:1:")
        assert made.endswith(b"\n")
        assert [line for line in odd.split(b"\n") if line] == made.split(b"\n")[1:-1]


# From images on the real engine -----------------------------------------------------------------------


@pytest.fixture
def image(data_dir):
    """Import an image of tar entries: (name, type, content or link's target)."""
    made = []

    def make(*entries: tuple[str, bytes, bytes | str], change: str = "") -> Image:
        packed, tag = io.BytesIO(), f"test-accounts:{uuid.uuid4().hex}"
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, kind, content in (("bin", tarfile.DIRTYPE, b""), *entries):
                entry = tarfile.TarInfo(name)
                entry.type, entry.mode = kind, 0o755
                entry.linkname = content if isinstance(content, str) else ""
                entry.devmajor, entry.devminor = 1, 3  # 0, 0 would be a file that is gone
                entry.size = len(content) if kind == tarfile.REGTYPE else 0
                archive.addfile(entry, io.BytesIO(content) if kind == tarfile.REGTYPE else None)
        changes = ["--change", change] if change else []
        subprocess.run(
            ["docker", "import", *changes, "-", tag], input=packed.getvalue(), check=True, capture_output=True
        )
        made.append(tag)
        return get_runtime().find_image(tag)

    yield make
    left = get_runtime().list(host.labels())
    assert not [one.handle.name for one in left if one.handle.name.startswith(accounts.READER)]
    subprocess.run(["docker", "rmi", *made], check=True, capture_output=True)


ETC, FILE = ("etc", tarfile.DIRTYPE, b""), tarfile.REGTYPE


def test_what_an_image_has_is_read_as_it_is(image):
    """Any bytes, a missing file, a missing /etc; an image with VOLUMEs creates no volume."""
    odd = b"root:x:0:0::/:\n\xff\xfe\0\r\nlast"
    both = image(ETC, ("etc/passwd", FILE, odd), ("etc/group", FILE, b""), change='VOLUME ["/data", "/data/deep"]')
    before = subprocess.run(["docker", "volume", "ls", "-q"], capture_output=True, check=True).stdout
    assert accounts.of_image(get_runtime(), both) == accounts.Accounts(odd, b"")
    assert subprocess.run(["docker", "volume", "ls", "-q"], capture_output=True, check=True).stdout == before
    assert accounts.of_image(get_runtime(), image(ETC)) == accounts.Accounts(b"", b"")
    for etc in (("etc", tarfile.SYMTYPE, "/state"), ("etc", FILE, b"x")):  # the engine makes it a directory
        assert accounts.of_image(get_runtime(), image(etc)) == accounts.Accounts(b"", b"")
    assert accounts.of_image(get_runtime(), image()) == accounts.Accounts(b"", b"")
    full = image(ETC, ("etc/passwd", FILE, b"x" * accounts.MAX_BYTES))
    assert len(accounts.of_image(get_runtime(), full).passwd) == accounts.MAX_BYTES


HOSTILE = {
    "a link to the host": ([ETC, ("etc/passwd", tarfile.SYMTYPE, "/proc/1/root/etc/shadow")], "symbolic link"),
    "a link into a volume": ([ETC, ("etc/group", tarfile.SYMTYPE, "../state/group")], "symbolic link"),
    "a link that leads nowhere": ([ETC, ("etc/passwd", tarfile.SYMTYPE, "gone")], "symbolic link"),
    "a link to itself": ([ETC, ("etc/passwd", tarfile.SYMTYPE, "passwd")], "cannot be read"),
    "a directory": ([ETC, ("etc/passwd", tarfile.DIRTYPE, b"")], "directory"),
    "a fifo": ([ETC, ("etc/group", tarfile.FIFOTYPE, b"")], "special file"),
    "a device": ([ETC, ("etc/passwd", tarfile.CHRTYPE, b"")], "special file"),
    "too large": ([ETC, ("etc/passwd", FILE, b"x" * (accounts.MAX_BYTES + 1))], f"{accounts.MAX_BYTES + 1} bytes"),
}


@pytest.mark.parametrize(("entries", "words"), HOSTILE.values(), ids=HOSTILE)
def test_what_nothing_can_be_mounted_over_is_said(image, entries, words):
    """The engine would follow the link, block at the FIFO, or fill our memory."""
    with pytest.raises(CannotMount, match=words) as raised:
        accounts.of_image(get_runtime(), image(*entries))
    assert "Leave user.name out" in raised.value.detail


def test_the_memory_of_a_container_is_its_users_and_its_groups():
    """The VOLUMEs of an image that no volume covers."""
    of_data = mounts.tmpfs(SPEC, SPEC.owner(200_001), Image("i", ("/data",)))[1]
    assert of_data == Tmpfs("/data", 64, 0o700, 200_001, 0, is_declared=True)
