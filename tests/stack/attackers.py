"""What a hostile tenant does with its key, and its program in its container; strangers at the port, too.

Each attack runs in a process of its own at the lowest priority, as its clients would sit on another machine:

    python -m tests.stack.attackers < target.json

It prints ``begun``, goes on until SIGTERM, and then prints how often it got which answer.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MIB = 1 << 20
NAMES = 245
"""Characters of a long name."""


@dataclass
class Target:
    """The deployment, and what the attacker has there."""

    port: int
    key: str
    tenant: str
    """Holds a container of ``pool``, in which the attacker's program runs."""
    spare: list[str]
    """More tenants of the same key, which hold nothing."""
    pool: str
    others: dict[str, str]
    """Pools by what they are for."""
    address: str
    """Of the attacker's own container."""
    drip_port: int
    answers: Counter[str] = field(default_factory=Counter)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout: float = 120,
        key: str | None = None,
    ) -> int:
        """The status of the answer; 0 if there was none. Both are counted."""
        given = {"Authorization": f"Bearer {key or self.key}", "Content-Type": "application/json", **(headers or {})}
        data = body if isinstance(body, bytes) else json.dumps(body) if body is not None else None
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        status = 0
        try:
            connection.request(method, path if path.startswith("/") else f"/api/v1/{path}", data, given)
            answer = connection.getresponse()
            status = answer.status
            answer.read()
            self.answers[str(status)] += 1
        except (OSError, http.client.HTTPException) as error:
            self.answers[type(error).__name__] += 1
        finally:
            connection.close()
        if status in (0, 429, 503):
            time.sleep(0.05)  # who goes on at once tells nothing more, but takes the processor from who is attacked
        return status

    def run(self, script: str, timeout_ms: int = 30_000, headers: dict[str, str] | None = None) -> int:
        body = {"command": ["sh", "-c", script], "timeoutMs": timeout_ms}
        return self.ask("POST", f"tenants/{self.tenant}/exec", body, headers)

    def leave_running(self, script: str) -> None:
        """A program of the container that goes on when its command has ended."""
        self.run(f"({script}) >/dev/null 2>&1 &")

    def sync(self) -> int:
        return self.ask("POST", f"tenants/{self.tenant}/sync", {"direction": "both"})

    def claim(self, tenant: str, pool: str, timeout_ms: int = 20_000, **body: Any) -> int:
        return self.ask("POST", f"tenants/{tenant}/claim?timeoutMs={timeout_ms}", {"poolId": pool, **body})

    def release(self, tenant: str, **body: Any) -> int:
        return self.ask("POST", f"tenants/{tenant}/release", body)

    def connect(self, port: int | None = None) -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", port or self.port), timeout=10)
        except OSError as error:
            self.answers[type(error).__name__] += 1
            return None

    def head(self, method: str, path: str, *more: str) -> bytes:
        lines = [f"{method} /api/v1/{path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {self.key}", *more]
        return "\r\n".join([*lines, "", ""]).encode()


Attack = Callable[[Target], None]
ATTACKS: dict[str, Attack] = {}


def attack(name: str) -> Callable[[Attack], Attack]:
    def keep(function: Attack) -> Attack:
        ATTACKS[name] = function
        return function

    return keep


def together(count: int, action: Callable[[int], Any]) -> None:
    """Do it in so many threads, over and over."""

    def loop(number: int) -> None:
        while True:
            action(number)

    for number in range(count):
        threading.Thread(target=loop, args=(number,), daemon=True).start()


# By the findings of the review -----------------------------------------------------------------------


@attack("D1 sync requests")
def sync_requests(target: Target) -> None:
    together(4, lambda _: target.sync())


@attack("D1b a file that turns into a FIFO")
def fifo(target: Target) -> None:
    target.leave_running(
        "cd /state; while :; do for i in 1 2 3 4; do echo $i$$ > f$i; rm f$i; mkfifo f$i; rm f$i; done; done"
    )
    together(2, lambda _: target.sync())


@attack("D2 joined claims of a full pool")
def joined_claims(target: Target) -> None:
    def wait(number: int) -> None:
        target.claim(target.spare[0], target.others["full"], 60_000)
        time.sleep(0.5)

    together(205, wait)


@attack("D2b waiting claims of many tenants of one key")
def waiting_claims(target: Target) -> None:
    def wait(number: int) -> None:
        target.claim(target.spare[number % len(target.spare)], target.others["full"], 60_000)
        time.sleep(0.5)

    together(205, wait)


@attack("D3 large kept answers")
def kept_answers(target: Target) -> None:
    def run(_: int) -> None:
        target.run("head -c 1048576 /dev/zero", headers={"Idempotency-Key": f"k-{random.getrandbits(64):x}"})

    together(4, run)


@attack("D4 two thousand odd names")
def odd_names(target: Target) -> None:
    tenant = target.spare[0]
    script = (
        "cd /state; mkdir -p odd; cd odd; i=0; while [ $i -lt 2000 ]; do i=$((i+1)); "
        ": > \"$(printf '\\001%0229d' $i)\"; done"
    )

    def turn(_: int) -> None:
        if target.claim(tenant, target.pool) in (200, 201):
            body = {"command": ["sh", "-c", script]}
            target.ask("POST", f"tenants/{tenant}/exec", body)
        target.release(tenant)

    together(1, turn)


@attack("D5 configs that are slow to validate")
def slow_configs(target: Target) -> None:
    unique = [[number, "x" * 8] for number in range(4_000)]
    mail = "a" * 27 + "!"

    def turn(number: int) -> None:
        config: dict[str, Any] = {"unique": unique} if number % 2 else {"mail": mail}
        target.claim(target.spare[number], target.others["checked"], 5_000, config=config)
        target.release(target.spare[number], discard=True)

    together(4, turn)


@attack("D6 streams that nobody reads")
def streams(target: Target) -> None:
    kept: list[socket.socket] = []

    def open_one(_: int) -> None:
        if len(kept) >= 1000:
            time.sleep(1)
            return
        opened = target.connect()
        if opened is None:
            time.sleep(0.1)
            return
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        opened.sendall(target.head("GET", f"events/stream?tenantId={target.tenant}", "Accept: text/event-stream"))
        with contextlib.suppress(OSError):
            answer = opened.recv(12)
            target.answers[answer[9:12].decode() or "closed"] += 1
            if answer[9:12] == b"200":
                kept.append(opened)
                return
        opened.close()
        time.sleep(0.1)

    together(4, open_one)


@attack("D6b idle connections of strangers")
def idle_connections(target: Target) -> None:
    kept: list[socket.socket] = []

    def open_one(number: int) -> None:
        if len(kept) >= 1000:
            for one in list(kept):  # a body that drips
                try:
                    one.send(b" ")
                except OSError:
                    kept.remove(one)
            time.sleep(1)
            return
        opened = target.connect()
        if opened is None:
            time.sleep(0.1)
            return
        try:
            if len(kept) % 2:
                opened.sendall(
                    b"POST /api/v1/tenants/x/claim HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500000\r\n\r\n{"
                )
            else:
                opened.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: ")
        except OSError as error:
            target.answers[type(error).__name__] += 1
            return
        kept.append(opened)
        target.answers["opened"] += 1

    together(1, open_one)


@attack("D7 commands that sleep")
def sleeping_commands(target: Target) -> None:
    together(17, lambda _: target.run("sleep 25"))


@attack("D8 many small files, and a disk that fills")
def small_files(target: Target) -> None:
    target.leave_running(
        "cd /state; mkdir -p a b; dd if=/dev/zero of=b/big bs=1M count=2000; "
        "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); : > a/$i; done"
    )
    together(1, lambda _: (target.sync(), time.sleep(1)))


@attack("D9 patterns with many stars")
def starred_patterns(target: Target) -> None:
    tenant = target.spare[0]
    script = (
        f"cd /state; i=10; while [ $i -lt 40 ]; do i=$((i+1)); : > $i$(head -c {NAMES} /dev/zero | tr '\\0' _); done"
    )

    def turn(_: int) -> None:
        if target.claim(tenant, target.others["starred"]) in (200, 201):
            target.ask("POST", f"tenants/{tenant}/exec", {"command": ["sh", "-c", script]})
        target.release(tenant)

    together(1, turn)


@attack("D10 a sink that drips")
def dripping_sink(target: Target) -> None:
    server = socket.create_server(("127.0.0.1", target.drip_port), backlog=200)

    def drip(taken: socket.socket) -> None:
        with contextlib.suppress(OSError), taken:
            taken.recv(65_536)
            taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: 100000\r\n\r\n<")
            target.answers["dripped"] += 1
            while True:
                taken.sendall(b"a")
                time.sleep(0.5)

    def serve(_: int) -> None:
        taken, _address = server.accept()
        threading.Thread(target=drip, args=(taken,), daemon=True).start()

    together(1, serve)
    together(6, lambda number: target.claim(target.spare[number], target.others["dripping"], 30_000))


@attack("D11 large metadata, and many empty directories")
def large_claims(target: Target) -> None:
    body = {"metadata": {"x": "y" * 900_000}, "config": {}}
    tenant = target.spare[0]

    def turn(number: int) -> None:
        if number == 0:
            target.claim(tenant, target.pool, 10_000, **body)
            target.release(tenant, discard=True)
        else:
            target.sync()
            time.sleep(1)

    target.leave_running("cd /state; i=0; while [ $i -lt 30000 ]; do i=$((i+1)); mkdir d$i; done")
    together(2, turn)


# Of our own invention: with a key ---------------------------------------------------------------------


@attack("requests as fast as they go")
def requests_of_all_kinds(target: Target) -> None:
    asks = (("GET", "status"), ("POST", "heartbeat"), ("GET", "runs?limit=200"), ("GET", "backups?limit=200"))

    def one(number: int) -> None:
        method, what = asks[number % len(asks)]
        target.ask(method, f"tenants/{target.tenant}/{what}", {} if method == "POST" else None)

    together(8, one)


@attack("large bodies with a key")
def large_bodies(target: Target) -> None:
    nested = b'{"command": ' + b"[" * 60 + b'"' + b"x" * (MIB - 200) + b'"' + b"]" * 60 + b"}"
    wide = json.dumps({"poolId": target.pool, "config": {f"k{n}": n for n in range(60_000)}, "nope": 1}).encode()

    def one(number: int) -> None:
        if number % 2:
            target.ask("POST", f"tenants/{target.tenant}/exec", nested)
        else:
            target.ask("POST", f"tenants/{target.spare[0]}/claim", wide)

    together(4, one)


@attack("claims and releases in a loop")
def claim_loop(target: Target) -> None:
    def turn(number: int) -> None:
        target.claim(target.spare[number], target.others["own"], 10_000)
        target.release(target.spare[number])

    together(4, turn)


@attack("claims and releases in a loop, of the same pool")
def claim_loop_of_the_same_pool(target: Target) -> None:
    def turn(number: int) -> None:
        target.claim(target.spare[number], target.pool, 10_000)
        target.release(target.spare[number])

    together(2, turn)


@attack("commands with endless output")
def endless_output(target: Target) -> None:
    together(8, lambda _: target.run("yes", 5_000))


@attack("logs followed and never read")
def unread_logs(target: Target) -> None:
    target.leave_running("yes $(seq 1 100) > /proc/1/fd/1")
    kept: list[socket.socket] = []

    def follow(_: int) -> None:
        if len(kept) >= 200:
            time.sleep(1)
            return
        opened = target.connect()
        if opened is None:
            time.sleep(0.1)
            return
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        opened.sendall(target.head("GET", f"tenants/{target.tenant}/logs?follow=true"))
        with contextlib.suppress(OSError):
            status = opened.recv(12)[9:12].decode()
            target.answers[status or "closed"] += 1
            if status == "200":
                kept.append(opened)
                return
        opened.close()
        time.sleep(0.1)

    together(4, follow)


@attack("WebSocket handshakes")
def handshakes(target: Target) -> None:
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")

    def one(_: int) -> None:
        opened = target.connect()
        if opened is None:
            time.sleep(0.1)
            return
        with contextlib.suppress(OSError), opened:
            head = target.head("GET", "x", *upgrade, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
            opened.sendall(head.replace(b"/api/v1/x", b"/ws/events"))
            target.answers[opened.recv(12)[9:12].decode() or "closed"] += 1

    together(8, one)


# Of our own invention: in the container -----------------------------------------------------------------


@attack("forks to the limit of processes")
def forks(target: Target) -> None:
    target.leave_running("while :; do sleep 1000 & done")
    target.leave_running("while :; do (while :; do :; done) & done")


@attack("busy loops")
def busy_loops(target: Target) -> None:
    target.leave_running("for i in $(seq 1 40); do (while :; do :; done) & done; wait")


@attack("memory to its end")
def memory(target: Target) -> None:
    target.leave_running("while :; do tail /dev/zero; done")
    target.leave_running("while :; do dd if=/dev/zero of=/tmp/x bs=1M; dd if=/dev/zero of=/dev/shm/x bs=1M; done")


@attack("a flood of log lines")
def log_flood(target: Target) -> None:
    target.leave_running("yes $(seq 1 100) > /proc/1/fd/1")


@attack("a disk that fills")
def disk(target: Target) -> None:
    target.leave_running("while :; do dd if=/dev/zero of=/state/big bs=1M count=3000; sync; done")
    target.leave_running("while :; do dd if=/dev/zero of=/extra/big bs=1M count=1000; sync; done")


@attack("hard links, holes and deep directories, saved")
def odd_files(target: Target) -> None:
    target.leave_running(
        "cd /state; dd if=/dev/zero of=one bs=1M count=1; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); ln one l$i; done"
    )
    target.leave_running("cd /state; for i in $(seq 1 20); do truncate -s 1T hole$i; done")
    target.leave_running("cd /state; while mkdir deeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeep; do cd deeee*; done")
    together(1, lambda _: (target.sync(), time.sleep(0.5)))


@attack("files made and removed while saved")
def churn(target: Target) -> None:
    for number in range(4):
        target.leave_running(
            f"mkdir -p /state/c{number}; cd /state/c{number}; while :; do i=0; while [ $i -lt 500 ]; do i=$((i+1)); "
            "echo $i > $i; mv $i x$i; done; rm -f x*; done"
        )
    together(1, lambda _: (target.sync(), time.sleep(0.5)))


@attack("UDP and SYN floods from the container")
def packets(target: Target) -> None:
    gateway = target.address.rsplit(".", 2)[0] + ".0.1"
    for number in range(8):
        target.leave_running(f"while :; do head -c 1000 /dev/zero | nc -u -w 1 {gateway} {9000 + number}; done")
        target.leave_running(f"while :; do nc -w 1 {gateway} {target.port} < /dev/null; done")


@attack("connections to its own port")
def own_port(target: Target) -> None:
    kept: list[socket.socket] = []

    def one(number: int) -> None:
        try:
            opened = socket.create_connection((target.address, 8080), timeout=2)
        except OSError as error:
            target.answers[type(error).__name__] += 1
            time.sleep(0.1)
            return
        target.answers["opened"] += 1
        if len(kept) < 500:
            kept.append(opened)
            return
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        opened.close()

    together(4, one)


# Strangers ----------------------------------------------------------------------------------------------


@attack("wrong keys")
def wrong_keys(target: Target) -> None:
    def one(_: int) -> None:
        target.ask("GET", "pools", key=f"bh_{random.getrandbits(64):016x}{'0' * 30}")

    together(8, one)


@attack("huge bodies without a key")
def huge_bodies(target: Target) -> None:
    chunk = b"x" * MIB

    def one(_: int) -> None:
        opened = target.connect()
        if opened is None:
            time.sleep(0.1)
            return
        with opened:
            try:
                size = 200 * MIB
                opened.sendall(
                    f"POST /api/v1/pools HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\n\r\n".encode()
                )
                for _ in range(200):
                    opened.sendall(chunk)
                target.answers[opened.recv(12)[9:12].decode() or "closed"] += 1
            except OSError as error:
                target.answers[type(error).__name__] += 1
                time.sleep(0.05)

    together(2, one)


@attack("sign-ins")
def sign_ins(target: Target) -> None:
    def one(_: int) -> None:
        name = f"u{random.getrandbits(48):x}"
        body = f"username={name}&password=wrong&csrfmiddlewaretoken={'a' * 64}".encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": f"csrftoken={'a' * 64}"}
        headers["Origin"] = f"http://127.0.0.1:{target.port}"
        target.ask("POST", "/login/", body, headers)

    together(12, one)


@attack("the schema document")
def schema(target: Target) -> None:
    together(12, lambda _: target.ask("GET", "openapi.json"))


def main() -> None:
    given = json.load(sys.stdin)
    os.nice(19)
    target = Target(**given["target"])

    def end(*_: object) -> None:
        print(json.dumps(dict(target.answers)), flush=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    for name in given["attacks"]:
        ATTACKS[name](target)
    print("begun", flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
