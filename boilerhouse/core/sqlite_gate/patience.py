"""Waiting for a file lock in the kernel's order, and not for ever.

``flock`` has no deadline, and asking again and again loses the order. So a thread waits in the kernel, and another
thread interrupts it by a signal when its time is over. ``fcntl.flock`` would go on waiting after that; the C function
returns.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import threading
import time

_LOOK_EVERY_S = 0.25
_SIGNAL = signal.SIGRTMIN + 6
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Watch:
    """Interrupts threads of this process that wait too long; has one thread, which sleeps while nobody waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waits: dict[int, float] = {}
        # The handler is a C function without effect: one in Python would run in the main thread, and only there.
        _LIBC.signal(_SIGNAL, _LIBC.abs)
        _LIBC.siginterrupt(_SIGNAL, 1)
        threading.Thread(target=self._run, name="gate-watch", daemon=True).start()

    def begin(self, until: float) -> None:
        with self._changed:
            self._waits[threading.get_ident()] = until
            self._changed.notify()

    def end(self) -> None:
        with self._changed:
            del self._waits[threading.get_ident()]

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waits)
            time.sleep(_LOOK_EVERY_S)
            with self._changed:  # so that nobody is interrupted who has ended waiting
                for thread, until in self._waits.items():
                    if time.monotonic() > until:
                        signal.pthread_kill(thread, _SIGNAL)


_watch: _Watch | None = None
_starting = threading.Lock()


def _begin_anew() -> None:
    global _watch, _starting
    _watch, _starting = None, threading.Lock()


os.register_at_fork(after_in_child=_begin_anew)  # a fork has no thread but its own


def _watching() -> _Watch:
    global _watch
    with _starting:
        _watch = _watch or _Watch()
        return _watch


def take(descriptor: int, within_s: float) -> bool:
    """Whether the descriptor has the lock of its file alone, after at most ``within_s`` seconds and a moment."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _wait(descriptor, time.monotonic() + within_s)
    return True


def _wait(descriptor: int, until: float) -> bool:
    watch = _watching()
    watch.begin(until)
    try:
        while _LIBC.flock(descriptor, fcntl.LOCK_EX) != 0:
            error = ctypes.get_errno()
            if error != errno.EINTR:
                raise OSError(error, os.strerror(error))
            if time.monotonic() > until:
                return False
        return True
    finally:
        watch.end()
