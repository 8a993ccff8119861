"""The main use case on example data, as a client would do it: everything through the Python client of the REST API.

alice claims, works and releases; bob finds nothing of hers; alice comes back to another container and finds everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml
from boilerhouse_client import Claim, Client

from boilerhouse.operations.example import EXAMPLE
from boilerhouse.operations.supervisor import EmbeddedS3

KINDS = {"Workload": "workloads", "Pool": "pools", "SyncSpec": "sync_specs"}
WRITE_FILES = """
set -e; cd /state; mkdir -p small empty private
for d in 0 1 2 3 4 5 6 7 8 9; do mkdir -p small/$d; done
i=0; while [ $i -lt 1000 ]; do echo; i=$((i+1)); done >/dev/null
head -c 5000000 /dev/urandom > /tmp/seed
for i in $(seq 0 999); do dd if=/tmp/seed of=small/$((i%10))/file-$i bs=5000 skip=$i count=1 2>/dev/null; done
head -c 5000000 /dev/urandom > large.bin; rm /tmp/seed
ln -s large.bin link; ln -s /nowhere/at-all dangling
printf '#!/bin/sh\\necho it runs\\n' > run.sh; chmod 755 run.sh
chmod 700 private; echo x > private/key; chmod 600 private/key
"""
FINGERPRINT = """
cd /state; find . -type f | sort | xargs sha256sum
find . -type f -o -type d | sort | xargs stat -c '%a %n' | grep -v ' \\.$'
find . -type l | sort | while read l; do echo "$l $(readlink $l)"; done
find . -type f | sort | xargs stat -c '%Y %n'; ./run.sh 2>&1
"""


class DemoFailed(Exception):
    """A result differs from what it must be."""


def run(claim: Claim, script: str) -> str:
    """The output of a shell script in the container. Raises DemoFailed if it fails."""
    result = claim.exec(["sh", "-c", script], timeout_s=60)
    require(result.exit_code == 0, f"In the container: exit code {result.exit_code}: {result.stderr[:300]}")
    return result.stdout


def require(truth: bool, words: str) -> None:
    if not truth:
        raise DemoFailed(words)


@dataclass
class Demo:
    """One run of the main use case; ``timings`` collects milliseconds."""

    client: Client
    s3: EmbeddedS3
    say: Callable[[str], None]
    timings: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def _timed(self, name: str, started: float) -> float:
        self.timings[name] = round((time.monotonic() - started) * 1000, 1)
        return self.timings[name]

    def run(self) -> None:
        """Run all steps. Raises DemoFailed with the difference."""
        self._register()
        self._wait_warm()
        config, secrets = {"greeting": "hello"}, {"TOKEN": "demo-secret-value"}
        alice = self._claim("alice", "claimMs", {"config": config, "secrets": secrets})
        self._work(alice)
        before = run(alice, FINGERPRINT)
        self._release(alice, "releaseMs")
        bob = self._claim("bob", "claimSecondTenantMs", {})
        remaining = run(bob, "ls -A /state /tmp /run/secrets")
        require(
            "small" not in remaining and "notes" not in remaining and "TOKEN" not in remaining,
            f"bob sees something: {remaining}",
        )
        require(self._notes(bob) == "", "bob sees alice's notes")
        self.say("bob claims: nothing of alice's is there")
        again = self._claim("alice", "claimWithRestoreMs", {"config": config, "secrets": secrets})
        require(again.container_id != alice.container_id, "alice got the same container again")
        after = run(again, FINGERPRINT)
        require(after == before, "alice's files differ after the restore")
        require("it runs" in after, "the executable does not run")
        require("tea" in self._notes(again), "alice's note is gone")
        restored = again.answer["restored"] or {}
        self.sizes |= {"restoredFiles": restored.get("files", 0), "restoredBytes": restored.get("bytes", 0)}
        self.say(f"alice is back in another container, {restored.get('files')} files as she left them")
        self._release(bob, "releaseEmptyMs")
        self._release(again, "releaseUnchangedMs")
        self._read_run_times()

    def _register(self) -> None:
        for document in yaml.safe_load_all(EXAMPLE.read_text()):
            kind = document.pop("kind")
            if kind == "SyncSpec":
                document["sink"] = self.s3.sink(document["sink"]["prefix"])
            created = getattr(self.client, KINDS[kind]).create(document)
            if kind == "SyncSpec":
                require(
                    created["sinkHealth"]["state"] == "healthy", f"the sink is not healthy: {created['sinkHealth']}"
                )
            if kind == "Pool":
                self._pool_made = time.monotonic()
            self.say(f"{kind} {created['id']} registered")

    def _wait_warm(self) -> None:
        deadline = time.monotonic() + 90
        while True:
            status = self.client.pools.get("notes")["status"]
            if status["idle"] >= 3:
                break
            require(time.monotonic() < deadline, f"the pool did not warm up: {status}")
            time.sleep(0.05)
        self.say(f"3 containers warm after {self._timed('poolWarmMs', self._pool_made):.0f} ms")

    def _claim(self, tenant: str, name: str, body: dict[str, Any]) -> Claim:
        started = time.monotonic()
        claim = self.client.claim(tenant, "notes", **body)
        self.say(f"{tenant} claims: {claim.source}, {self._timed(name, started):.0f} ms")
        return claim

    def _release(self, claim: Claim, name: str) -> None:
        started = time.monotonic()
        require(claim.release(), f"the release of {claim.id} was not done in time")
        self.say(f"{claim.id} releases: saved and gone after {self._timed(name, started):.0f} ms")

    def _notes(self, claim: Claim) -> str:
        return claim.request("GET", "/cgi-bin/notes").text

    def _work(self, claim: Claim) -> None:
        about = claim.request("GET", "/cgi-bin/about").json()
        require(about["claim"]["tenantId"] == "alice", f"the workload sees another claim: {about}")
        require({"config.json", "TOKEN", "claim.json"} <= set(about["files"]), f"files are missing: {about}")
        written = claim.request("POST", "/cgi-bin/notes", content='{"note": "buy tea"}')
        require(written.is_success, f"the workload answers {written.status_code}: {written.text[:300]}")
        run(claim, WRITE_FILES)
        count, size = run(claim, "find /state -type f | wc -l; find /state -type f | xargs cat | wc -c").split()
        self.sizes |= {"files": int(count), "bytes": int(size)}
        self.say(f"alice writes {count} files, {int(size) / 1e6:.1f} MB, links and an executable")

    def _read_run_times(self) -> None:
        runs = list(self.client.tenant("alice").runs())
        took = {
            run["id"]: (_seconds(run["finishedAt"]) - _seconds(run["startedAt"])) * 1000
            for run in runs
            if run["state"] == "succeeded"
        }
        require(len(took) == len(runs), f"a sync run did not succeed: {runs}")
        saves = [took[run["id"]] for run in reversed(runs) if run["direction"] == "upload"]
        restores = [took[run["id"]] for run in reversed(runs) if run["direction"] == "download"]
        self.timings |= {"saveMs": round(saves[0], 1), "saveUnchangedMs": round(saves[-1], 1)}
        self.timings["restoreMs"] = round(restores[-1], 1)


def _seconds(stamp: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(stamp).timestamp()
