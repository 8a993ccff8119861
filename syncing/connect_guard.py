"""Decides which addresses rclone and its children may connect to, with the kernel's seccomp notifications (ADR 46).

The kernel passes each connect() to one of our threads, which reads the address from the calling process and decides. A
hostile program could race this, but rclone is not hostile; it only goes where a server redirects it. Needs Linux 5.5
and CAP_SYS_ADMIN; if the kernel refuses, nothing is started.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import ipaddress
import os
import platform
import select
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Self

import structlog

from syncing import errors

log = structlog.get_logger(__name__)

_MACHINES = {"x86_64": (0xC000003E, 317, 42), "aarch64": (0xC00000B7, 277, 203)}
"""By machine: the kernel's architecture number, and the numbers of seccomp and connect."""
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ASK = 0x7FFF0000, 0x7FC00000
_SET_FILTER, _NEW_LISTENER = 1, 8
_RECEIVE, _ANSWER = 0xC0502100, 0xC0182101
_QUESTION, _REPLY = struct.Struct("=QIIiIQ6Q"), struct.Struct("=Qqii")
_CONTINUE = 1
_EACCES = 13
_MOST = 128
"""Maximum bytes of an address in the kernel."""

Allows = Callable[[str, int], bool]


class Guard:
    """Starts a process and decides about all its connections; close it when the process has ended."""

    def __init__(self, allows: Allows) -> None:
        self.refused: list[str] = []
        """Refused destinations, as ``address:port``, in order and once each."""
        self._allows = allows
        self._listener = -1
        self._wake, self._done = os.pipe2(os.O_CLOEXEC)
        self._started = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def popen(
        self, command: Sequence[str], first: Callable[[], None] | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """As ``subprocess.Popen``. Raises SyncFailed if the kernel does not support the filter.

        ``first`` is called before, in the thread that starts the process: changes to that thread's view of the node
        affect only this process.
        """
        # The filter applies permanently to the thread that sets it and to its children, and a child that is to die
        # with its parent dies with that thread. So a separate thread sets it, and stays alive.
        self._thread = threading.Thread(
            target=self._run, args=(command, first, options), name="rclone-connects", daemon=True
        )
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure
        assert self._process is not None
        return self._process

    def __exit__(self, *_: object) -> None:
        os.close(self._done)
        if self._thread is not None:
            self._thread.join()
        os.close(self._wake)
        if self._listener >= 0:
            os.close(self._listener)

    def _run(self, command: Sequence[str], first: Callable[[], None] | None, options: dict[str, Any]) -> None:
        try:
            if first is not None:
                first()
            self._listener = _listen()
            self._process = subprocess.Popen(command, **options)
        except BaseException as error:
            self._failure = error
            return
        finally:
            self._started.set()
        self._serve()

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._wake, select.POLLIN | select.POLLHUP)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._wake in ready:
                return
            with contextlib.suppress(FileNotFoundError):  # the calling process is dead
                self._answer()

    def _answer(self) -> None:
        question = bytearray(_QUESTION.size)
        fcntl.ioctl(self._listener, _RECEIVE, question)
        number, pid, _, _, _, _, _, address, length, *_ = _QUESTION.unpack(question)
        may = self._may(pid, address, min(length & 0xFFFFFFFF, _MOST))
        reply = _REPLY.pack(number, 0, 0, _CONTINUE) if may else _REPLY.pack(number, 0, -_EACCES, 0)
        fcntl.ioctl(self._listener, _ANSWER, reply)

    def _may(self, pid: int, address: int, length: int) -> bool:
        try:
            memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = os.pread(memory, length, address)
            finally:
                os.close(memory)
            end = _end_of(data)
            if end is None or self._allows(*end):
                return True
        except (OSError, ValueError, struct.error) as error:
            log.warning("connection of rclone refused", error=type(error).__name__, detail=str(error)[:200])
            return False
        destination = f"[{end[0]}]:{end[1]}" if ":" in end[0] else f"{end[0]}:{end[1]}"
        if destination not in self.refused:
            self.refused.append(destination)
        return False


def _end_of(data: bytes) -> tuple[str, int] | None:
    """Address and port of a sockaddr; None if it is not a network address. Raises ValueError for any other kind."""
    family = int.from_bytes(data[:2], "little")
    if family in (socket.AF_UNIX, socket.AF_UNSPEC):
        return None
    port = int.from_bytes(data[2:4], "big")
    if family == socket.AF_INET and len(data) >= 8:
        return str(ipaddress.IPv4Address(data[4:8])), port
    if family == socket.AF_INET6 and len(data) >= 24:
        return str(ipaddress.IPv6Address(data[8:24])), port
    raise ValueError(f"an address of family {family}")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


_libc = ctypes.CDLL(None, use_errno=True)


def _listen() -> int:
    """Enable notifications for the calling thread's connections and those of its children; returns their descriptor."""
    machine = platform.machine()
    code = _filter(machine)
    program = _Program(len(code) // 8, code)
    _, seccomp, _ = _MACHINES[machine]
    listener = _libc.syscall(seccomp, _SET_FILTER, _NEW_LISTENER, ctypes.byref(program))
    if listener < 0:
        why = os.strerror(ctypes.get_errno())
        raise errors.SyncFailed(
            f"Cannot supervise rclone's connections ({why}). This requires Linux 5.5, and CAP_SYS_ADMIN for the worker."
        )
    return int(listener)


@cache
def _filter(machine: str) -> bytes:
    """Classic BPF: connect() is notified, everything else allowed. Raises KeyError for an unknown machine."""
    architecture, _, connect = _MACHINES[machine]
    program = [
        (_LOAD, 0, 0, 4), (_EQUAL, 0, 3, architecture), (_LOAD, 0, 0, 0), (_EQUAL, 0, 1, connect),
        (_RETURN, 0, 0, _ASK), (_RETURN, 0, 0, _ALLOW),
    ]  # fmt: skip
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
