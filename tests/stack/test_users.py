"""The users of a container's processes, through claims, restores and commands. See also
``tests/pools/test_users.py``."""

from __future__ import annotations

import pytest

from boilerhouse.core.deployment import data_dir
from pools import volumes
from pools.models import Container
from tests.stack.conftest import eventually

STATE = "t/${tenantId}/"
WHO = "id -u; id -g; id -G | tr ' ' '\\n' | sort -nu | xargs; whoami; id -gn; echo $HOME; cd ~ && pwd"
NAMED = {"gid": 0, "groups": [44, 6], "name": "app", "home": "/state/home"}


@pytest.mark.any_database
def test_the_user_that_was_asked_for_is_there_after_claim_restore_and_in_every_command(stack, pools, sink_server):
    """Process, health check, hook and exec are the same; what comes back is its group's, too."""
    workload = {
        "user": NAMED, "command": ["sh", "-c", f"( {WHO} ) > /extra/process; exec sleep 10000"], "ports": [],
        "healthCheck": {"command": ["sh", "-c", f"( {WHO} ) > /extra/health"]},
        "hooks": {"postClaim": {"command": ["sh", "-c", f"( {WHO} ) > /extra/hook"]}},
    }  # fmt: skip
    pool = pools(workload=workload, sink=sink_server.json(STATE), maxSize=3)
    for turn in range(2):
        inside = stack.claim("ana", pool, secrets={"TOKEN": "t"})["containerId"]
        container = Container.objects.get(pk=inside)
        uid = container.uid
        expected = [str(uid), "0", "0 6 44", "app", "root", "/state/home", "/state/home"]
        assert stack.exec(inside, WHO).splitlines() == expected
        for name in ("process", "health", "hook"):
            assert stack.exec(inside, f"cat /extra/{name}").splitlines() == expected
        assert stack.exec(inside, "cat /run/secrets/TOKEN") == "t"
        assert stack.exec(inside, "stat -c %u:%g:%a /state /state/home /extra /run/secrets/TOKEN").split() == [
            f"{uid}:0:700", f"{uid}:0:755", f"{uid}:0:700", f"{uid}:0:400",
        ]  # fmt: skip
        if turn:
            assert stack.exec(inside, "cd; cat kept; stat -c %u:%g:%a kept shared shared/by").split() == [
                "mine", f"{uid}:0:644", f"{uid}:0:2770", f"{uid}:0:644",
            ]  # fmt: skip
        home = volumes.home(container.pk)
        for parent in (data_dir() / "containers", home, home / ".accounts"):
            assert (parent.stat().st_uid, parent.stat().st_mode & 0o777) == (0, 0o700)
        for name in ("passwd", "group"):
            seen = (home / ".accounts" / name).stat()
            assert (seen.st_uid, seen.st_gid, seen.st_mode & 0o7777, seen.st_nlink) == (0, 0, 0o444, 1)
        stack.exec(inside, "cd; echo mine > kept; chmod 644 kept; mkdir -p shared; chmod 2770 shared; touch shared/by")
        stack.release("ana")
        assert not home.exists()


@pytest.mark.any_database
def test_a_user_changes_by_a_new_version(stack, pools):
    """Rolled like any other change; back to nothing is as it was."""
    pool = pools(workload={"ports": [], "command": ["sleep", "10000"]}, maxSize=3)
    for number, (user, gid) in enumerate([({"gid": 0}, "0"), (None, None)], start=2):
        stack.put_workload(pool, user=user)
        eventually(lambda: {one["workloadVersion"] for one in stack.containers(pool)} == {number}, 60)  # noqa: B023
        inside = stack.claim(f"t{number}", pool)["containerId"]
        assert stack.exec(inside, "id -g").strip() == (gid or str(Container.objects.get(pk=inside).uid))
