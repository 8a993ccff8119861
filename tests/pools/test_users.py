"""The users of a container's processes, in real containers: as requested, and without additional rights."""

from __future__ import annotations

import io
import subprocess
import tarfile
import uuid

import pytest
from django.conf import settings

from pools import dry_runs, images
from pools.runtime import get_runtime
from pools.spec import Owner
from tests.make import make_spec

pytestmark = [pytest.mark.any_database, pytest.mark.django_db, pytest.mark.slow]
UID = settings.BOILERHOUSE_UID_RANGE[1]
"""Of trials."""
NAMED = {"uid": None, "gid": 0, "groups": [44, 6], "name": "app", "home": "/state/home"}
PLAIN = {"uid": None, "gid": None, "groups": [], "name": None, "home": None}


@pytest.fixture(autouse=True)
def _example(data_dir):
    images.ensure_example()


def said(script: str, **over) -> str:
    """What a shell says as the health check of such a container."""
    check = {"command": ["sh", "-c", f"{{ {script}\n}} 2>&1; true"], "interval_ms": 1000, "timeout_ms": 30_000,
             "retries": 1, "start_period_ms": 0}  # fmt: skip
    tried = dry_runs.run(make_spec(command=["sleep", "1000"], health_check=check, **over))
    assert tried.is_healthy, tried
    return tried.output


@pytest.fixture
def image():
    """Build images from the example's with files of root's; a file without content is a directory."""
    made = []

    def make(files: dict[str, tuple[int, str | None]], *lines: str) -> str:
        context, tag = io.BytesIO(), f"test-users:{uuid.uuid4().hex}"
        dockerfile = "\n".join([f"FROM {images.EXAMPLE_IMAGE}", "COPY root/ /", *lines])
        with tarfile.open(fileobj=context, mode="w") as archive:
            for path, (mode, text) in {"Dockerfile": (0o644, dockerfile), **files}.items():
                entry = tarfile.TarInfo(path if path == "Dockerfile" else f"root{path}")
                entry.type, entry.mode = tarfile.DIRTYPE if text is None else tarfile.REGTYPE, mode
                entry.size = len((text or "").encode())
                archive.addfile(entry, io.BytesIO((text or "").encode()))
        list(get_runtime().build(context.getvalue(), tag))
        made.append(tag)
        return tag

    yield make
    subprocess.run(["docker", "rmi", *made], capture_output=True, check=True)


def test_the_container_sees_the_user_that_was_asked_for():
    """An image without /etc/passwd; its home is created, and its volumes belong to it and its group."""
    who = "id -u; id -g; id -G | tr ' ' '\\n' | sort -nu | tr '\\n' ' '; echo; whoami; id -gn; echo $HOME; cd ~ && pwd; stat -c %u:%g:%a /state . /run/secrets"
    expected = [
        str(UID), "0", "0 6 44 ", "app", "root", "/state/home", "/state/home",
        f"{UID}:0:700", f"{UID}:0:755", f"{UID}:0:700",
    ]  # fmt: skip
    assert said(f"{who}; touch /state/mine", user=NAMED).splitlines() == expected
    assert said("id -nG", user=NAMED).split() == ["root", "gid-6", "gid-44"]


def test_what_is_left_out_stays_as_it_was():
    """Each part by itself; and the older spelling."""
    assert said("id -u; id -g; id -G; echo $HOME; ls /etc/passwd").split()[:4] == [str(UID), *[str(UID)] * 2, "/"]
    assert said("id -u; id -g; id -G; echo $HOME", user={**PLAIN, "home": "/state"}).split() == [
        *[str(UID)] * 3,
        "/state",
    ]
    assert said("echo $HOME", user={**PLAIN, "home": "/state"}, environment={"HOME": "/tmp"}).strip() == "/tmp"
    assert said("id -u; id -g", user={**PLAIN, "uid": 102, "gid": 105}).split() == ["102", "105"]
    assert said("id -u; id -g; stat -c %u:%g /state", security={"run_as_user": 102}).split() == [
        "102",
        "102",
        "102:102",
    ]


def test_the_users_name_is_in_the_place_of_the_images(image):
    """Debian's postgres is 102:105; without a name asked for, passwd is the image's."""
    passwd = "root:x:0:0::/root:/bin/sh\npostgres:x:102:105::/var/lib/pg:/bin/sh\n"
    groups = "root:x:0:\nssl-cert:x:102:\npostgres:x:105:\n"
    made = image({"/etc": (0o755, None), "/etc/passwd": (0o664, passwd), "/etc/group": (0o664, groups)})
    images_own = said(
        "id -un; id -gn; id -nG; cat /etc/passwd", image=made, user={**PLAIN, "uid": 102, "gid": 105, "groups": [102]}
    )
    assert images_own.splitlines()[0:2] == ["postgres", "postgres"]
    assert "ssl-cert" in images_own.splitlines()[2].split()
    assert images_own.endswith(passwd)
    named = said(
        "whoami; id -u postgres; id -gn; id -u root; id -gn root; wc -l < /etc/passwd", image=made,
        user={**PLAIN, "name": "postgres", "home": "/state"},
    )  # fmt: skip
    assert named.split() == ["postgres", str(UID), "postgres", "0", "root", "2"]


@pytest.mark.parametrize("read_only", [True, False])
def test_passwd_and_group_cannot_be_written(image, read_only):
    """Nor if the image lets group 0 write them, like images for OpenShift."""
    made = image(
        {"/etc": (0o775, None), "/etc/passwd": (0o664, "root:x:0:0::/:\n"), "/etc/group": (0o664, "root:x:0:\n")}
    )
    attacks = [
        "echo evil:x:0:0::/: >> /etc/passwd", "echo evil:x:0:app >> /etc/group", "rm -f /etc/passwd", "mv /etc/group /etc/g",
        "umount /etc/passwd", "chmod 666 /etc/passwd", "ln -f /etc/passwd /etc/other", "truncate -s 0 /etc/group",
    ]  # fmt: skip
    script = "; ".join(f"({one}) && echo BROKEN: {one.split()[0]}" for one in attacks)
    over = {"image": made, "user": NAMED, "security": {"read_only_root_filesystem": read_only}}
    found = said(f"{script}; cat /etc/passwd /etc/group", **over)
    assert "BROKEN" not in found
    assert "evil" not in found
    assert f"app:x:{UID}:0:app:/state/home:/bin/sh\n" in found


MAY_OPEN = """
find / -xdev -type f > /tmp/all; find /dev /proc/sys /sys ! -type l ! -type d ! -type p >> /tmp/all
while read -r p; do true >> "$p" && echo "$p"; done < /tmp/all 2>/dev/null; wc -l < /tmp/all
"""


def test_groups_of_the_host_open_nothing_of_it():
    """Group 0, disk, shadow and docker: only files of that group become writable; hardening stays."""
    hostile = {**NAMED, "groups": [0, 6, 42, 998, 999]}
    ordinary, root = (
        {path for path in said(MAY_OPEN, user=user).splitlines() if not path.startswith(("/tmp", "/state", "/dev/pts"))}
        for user in (PLAIN, hostile)
    )
    assert {path for path in root if path.startswith("/")} == {path for path in ordinary if path.startswith("/")}
    assert all(path.startswith("/dev/") for path in root if path.startswith("/"))
    assert any(path.isdigit() and int(path) > 1000 for path in root), "sysfs was looked at"
    tried = said(
        "mknod /state/sda b 8 0; echo x >> /etc/hosts; chgrp 12345 /state; cp /bin/busybox /state/sh; chmod 2755 /state/sh;"
        " grep -E 'NoNewPrivs|Seccomp:|CapBnd|CapEff' /proc/self/status",
        user=hostile,
    )
    assert "mknod: /state/sda: Operation not permitted" in tried
    assert "chgrp: /state: Operation not permitted" in tried
    assert "/etc/hosts" in tried
    for sign in ("NoNewPrivs:\t1", "Seccomp:\t2", f"CapBnd:\t{'0' * 16}", f"CapEff:\t{'0' * 16}"):
        assert sign in tried


def test_an_image_made_for_an_arbitrary_user_of_the_root_group_works(image):
    """OpenShift's way: directories of root:root that the group may write; a uid's own group may not."""
    made = image({"/srv/app": (0o775, None)})
    writes = "echo x > /srv/app/new && echo written"
    writable = {"security": {"read_only_root_filesystem": False}}
    assert said(writes, image=made, user={**PLAIN, "gid": 0}, **writable) == "written\n"
    assert said(writes, image=made, user={**PLAIN, "groups": [0]}, **writable) == "written\n"
    assert "Permission denied" in said(writes, image=made, **writable)
    assert "Read-only file system" in said(writes, image=made, user={**PLAIN, "gid": 0})


def test_an_image_whose_passwd_cannot_be_replaced_is_said(image):
    """Before the container runs."""
    made = image({"/etc": (0o755, None)}, "RUN ln -s /state/passwd /etc/passwd")
    tried = dry_runs.run(make_spec(image=made, command=["sleep", "1000"], user=NAMED))
    assert not tried.is_healthy
    assert "/etc/passwd is a symbolic link" in tried.message
    assert make_spec(user=NAMED).owner(5) == Owner(5, 0)
