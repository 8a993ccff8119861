"""The reported last output contains the error message, wherever a language prints it. The samples are real output."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pools import last_output
from pools.runtime.base import Handle, Observed

NODE = """node:os:365
    throw new ERR_SYSTEM_ERROR(ctx);
    ^

SystemError [ERR_SYSTEM_ERROR]: A system error occurred: uv_os_get_passwd returned ENOENT (no such file or directory)
    at Object.userInfo (node:os:365:11)
    at Object.<anonymous> (/app/server.js:3:17)
    at Module._compile (node:internal/modules/cjs/loader:1198:14)
    at Object.Module._extensions..js (node:internal/modules/cjs/loader:1252:10)
    at Module.load (node:internal/modules/cjs/loader:1076:32)
    at Function.Module._load (node:internal/modules/cjs/loader:911:12)
    at node:internal/main/run_main_module:22:47 {
  code: 'ERR_SYSTEM_ERROR',
  info: {
    errno: -2,
    code: 'ENOENT',
    message: 'no such file or directory',
    syscall: 'uv_os_get_passwd'
  },
  errno: [Getter/Setter],
  syscall: [Getter/Setter]
}

Node.js v18.20.4
"""
PYTHON = """INFO starting
Traceback (most recent call last):
  File "/app/main.py", line 4, in connect
    socket.create_connection(("db", 5432))
ConnectionRefusedError: [Errno 111] Connection refused

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/app/main.py", line 11, in <module>
    main()
  File "/app/main.py", line 8, in main
    raise RuntimeError("no database") from error
RuntimeError: no database
"""
JAVA = (
    """Exception in thread "main" java.lang.IllegalStateException: cannot start
"""
    + "".join(f"\tat org.example.App.step{n}(App.java:{n})\n" for n in range(40))
    + """Caused by: java.net.BindException: Permission denied
"""
    + "".join(f"\tat sun.nio.ch.Net.bind{n}(Net.java:{n})\n" for n in range(20))
    + "\t... 12 more\n"
)
GO = """panic: runtime error: invalid memory address or nil pointer dereference
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x48f1c5]

""" + "\n".join(f"goroutine {n} [running]:\nmain.work({n})\n\t/src/main.go:{n} +0x1c5\n" for n in range(1, 400))


@pytest.mark.parametrize(
    ("dump", "words"),
    [
        (NODE, ["SystemError [ERR_SYSTEM_ERROR]: A system error occurred: uv_os_get_passwd returned ENOENT"]),
        (PYTHON, ["ConnectionRefusedError: [Errno 111] Connection refused", "RuntimeError: no database"]),
        (JAVA, ["IllegalStateException: cannot start", "Caused by: java.net.BindException: Permission denied"]),
        (GO, ["panic: runtime error: invalid memory address or nil pointer dereference"]),
    ],
    ids=["node", "python", "java", "go"],
)
def test_the_message_is_among_them(dump, words):
    """The last five lines, or 400 characters, did not contain it."""
    noise = "".join(f"GET /{n} 200\n" for n in range(1000))
    for before in ("", noise):
        said = last_output.pick((before + dump).encode())
        for one in words:
            assert one in said
        assert said.endswith(last_output.lines_of(dump.encode())[-1])
        assert len(said.splitlines()) <= 2 * (last_output.FIRST + last_output.TOLD + last_output.LAST)
        assert len(said) < 4000


def test_few_lines_are_all_kept_and_none_is_endless():
    """Everything that fits is included, and control characters are removed."""
    assert last_output.pick(b"one\n\ntwo\n\x1b[31mthree\x1b[0m\r\n\x07four\nfive") == "one\ntwo\nthree\nfour\nfive"
    assert last_output.pick(b"") == ""
    assert len(last_output.pick(b"x" * 1_000_000)) == last_output.MAX_LINE + 1
    assert last_output.pick(b"\n".join(b"%d" % n for n in range(100))) == "0\n1\n…\n97\n98\n99"


def test_signals_have_names_and_memory_is_said_as_such():
    """Exit codes from 129 on are signals; a child killed for lack of memory is reported too."""

    def seen(code: int, *, is_oom: bool = False) -> Observed:
        return Observed(Handle("n", "i", "c"), {}, False, "exited", code, is_oom_killed=is_oom)

    assert last_output.ended(seen(1)) == "exit code 1"
    assert last_output.ended(seen(139)) == "exit code 139 (SIGSEGV)"
    assert last_output.ended(seen(137)) == "exit code 137 (SIGKILL)"
    assert last_output.ended(seen(255)) == "exit code 255"
    assert last_output.ended(seen(137, is_oom=True)).startswith("exit code 137 (SIGKILL): it exceeded its memory limit")
    assert "one of its processes was killed, because it exceeded its memory limit" in last_output.ended(
        seen(1, is_oom=True)
    )
    assert last_output.ended(None) == "an unknown exit code"


def test_a_line_without_end_is_looked_at_in_time():
    """A tenant's last output must not delay the process that reads it; one line of a MiB took hours (P14)."""
    subprocess.run([sys.executable, "-c", PICK], timeout=60, check=True)


PICK = """
import django
django.setup()
from pools import last_output
for unit in ("a.", "A$", "A_", "at ", " ", "\\x1b[", "\\x1b[1;", "ERR", "x.go:"):
    last_output.pick(unit.encode() * (last_output.LOOK_AT_BYTES // len(unit)))
"""


def test_an_error_is_told_also_where_nothing_is_before_the_word():
    """Node says ``Error: Cannot find module``, many loggers say ERROR."""
    noise = "".join(f"line {n}\n" for n in range(100))
    for told in ("Error: Cannot find module '/app/x.js'", "2026-01-31 ERROR cannot bind", "[FATAL] no disk"):
        assert told in last_output.pick(f"{noise}{told}\n{noise}".encode())


def test_output_becomes_one_line_that_can_be_stored_and_shown():
    """PostgreSQL stores no NUL, and a terminal obeys escapes (P12)."""
    assert last_output.line_of(b"a\0b\x1b[31mc\r\n\n\x07d\xff", 100) == "abc d\ufffd"
    assert last_output.line_of(b"x" * 50, 10) == "x" * 10
