"""What requests say and how answers are read: everything that does not depend on how bytes travel."""

from __future__ import annotations

import base64
import codecs
import time
from collections.abc import Callable, Mapping, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy
from os import PathLike
from typing import Any

import httpx

from boilerhouse_client.answers import CommandResult, Exit, Gap, Json, Output
from boilerhouse_client.errors import (
    BY_STATUS,
    ApiError,
    Conflict,
    Failed,
    Forbidden,
    Invalid,
    NotFound,
    Throttled,
    TimedOut,
    Unauthorized,
    Unavailable,
    Unreachable,
)

CONNECT_S = 10.0
LONGEST_PAUSE_S = 30.0
SILENCE_S = 45.0
"""Longer than any stream of events is silent: the server sends a comment every 15 seconds."""
STEADY_S = 5.0
"""A connection that was open so long did not fail at once."""
KEPT_BYTES = 1 << 20
"""How much of each stream a result has, if the output is followed: as much as the server's own answers have."""
INPUT_BYTES = 512 * 1024
"""Of one request: its body has at most 1 MiB, in base64."""
FOREIGN = "error"
"""The code of an error that is no problem document: a proxy between us and Boilerhouse made it."""
IN_FLIGHT = "idempotency_key_in_flight"
SHELL = "if command -v bash >/dev/null; then exec bash; fi; exec sh"

Path = str | PathLike[str]
Words = Sequence[str] | str
"""A program with its arguments; or a script, as one text, that ``/bin/sh -c`` runs."""
Callback = Callable[[str], object]


# Requests -----------------------------------------------------------------------------------------------------


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def octets(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else data


def words_body(command: Words) -> Json:
    return {"script": command} if isinstance(command, str) else {"command": list(command)}


def command_body(
    command: Words,
    *,
    cwd: str | None,
    env: Mapping[str, str] | None,
    stdin: bytes | str | None,
    timeout_s: float | None,
    **more: Any,
) -> Json:
    body: Json = {**words_body(command), "encoding": "base64", "timeoutMs": milliseconds(timeout_s), **more}
    if stdin is not None:
        body["stdin"] = text(octets(stdin))
    if cwd is not None:
        body["cwd"] = cwd
    if env:
        body["env"] = dict(env)
    return body


def claim_body(
    pool_id: str,
    config: Json | None,
    secrets: Mapping[str, str] | None,
    metadata: Json | None,
    network: Json | None,
    ttl_s: float | None,
    *,
    command: Words | None = None,
    wait: bool = True,
) -> Json:
    ttl_ms = None if ttl_s is None else milliseconds(ttl_s)
    given = {"config": config, "secrets": secrets, "metadata": metadata, "network": network, "ttlMs": ttl_ms}
    body: Json = {"poolId": pool_id, **parameters(given)}
    if not wait:
        body["wait"] = False
    return body if command is None else {**body, **words_body(command)}


def milliseconds(seconds: float | None) -> int:
    """At least one, because 0 means that there is no limit; 0 for None."""
    return 0 if seconds is None else max(1, round(seconds * 1000))


def paths(**given: Path) -> Json:
    """Fields for these paths; percent-encoded if one of them has bytes that are no UTF-8 (``os.fsdecode``)."""
    raw = {name.rstrip("_"): str(path).encode("utf-8", "surrogateescape") for name, path in given.items()}
    try:
        return {name: path.decode() for name, path in raw.items()}
    except UnicodeDecodeError:
        encoded = {name: "".join(f"%{byte:02X}" for byte in path) for name, path in raw.items()}
        return {**encoded, "pathEncoding": "percent"}


def parameters(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """A query without what is None."""
    return {name: value for name, value in (given or {}).items() if value is not None}


def no_cookies() -> CookieJar:
    """A jar that stays empty: a cookie of one container is not for another one at the same address."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


# Answers ------------------------------------------------------------------------------------------------------


def error_of(answer: httpx.Response) -> ApiError:
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"code": FOREIGN, "detail": answer.text[:200]}
    after = answer.headers.get("Retry-After", "")
    kind = BY_STATUS.get(answer.status_code, ApiError)
    return kind(answer.status_code, problem, float(after) if after.isdecimal() else None)


def result_of(answer: Json) -> CommandResult:
    """Of an answer whose output is base64."""
    return CommandResult(
        answer["commandId"], answer["exitCode"], answer["signal"], base64.b64decode(answer["stdout"]),
        base64.b64decode(answer["stderr"]), answer["stdoutTruncated"], answer["stderrTruncated"],
        answer["durationMs"], answer["via"],
    )  # fmt: skip


def first_result(answer: Json) -> CommandResult:
    """Of a claim's answer, whose output is text. Raises Failed and TimedOut with the code that it has."""
    if (error := answer["error"]) is not None:
        printed = {name: text(answer[name].encode()) for name in ("stdout", "stderr")}
        raise TimedOut(504, {**error, **printed}) if error["code"] == "exec_timed_out" else Failed(502, error)
    encoded = {name: text(answer[name].encode()) for name in ("stdout", "stderr")}
    return result_of({**answer, **encoded})


class Collected:
    """The output of a command that is followed: its beginning, for the result, and all of it for the callbacks."""

    def __init__(self, command_id: str, on_stdout: Callback | None, on_stderr: Callback | None) -> None:
        self._id, self._began = command_id, time.monotonic()
        self._call = {"stdout": on_stdout, "stderr": on_stderr}
        self._kept = {"stdout": bytearray(), "stderr": bytearray()}
        self._is_cut = {"stdout": False, "stderr": False}
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {"stdout": decoder("replace"), "stderr": decoder("replace")}

    def take(self, output: Output | Gap) -> None:
        if isinstance(output, Gap):
            self._is_cut = {"stdout": True, "stderr": True}
            return
        kept = self._kept[output.stream]
        room = KEPT_BYTES - len(kept)
        kept += output.data[:room]
        self._is_cut[output.stream] |= len(output.data) > room
        self._say(output.stream, output.data, is_last=False)

    def result(self, end: Exit) -> CommandResult:
        """Raises TimedOut."""
        for stream in ("stdout", "stderr"):
            self._say(stream, b"", is_last=True)
        out, err = bytes(self._kept["stdout"]), bytes(self._kept["stderr"])
        if end.timed_out:
            detail = "The command did not end within its time and was killed."
            raise TimedOut(504, {"code": "exec_timed_out", "detail": detail, "stdout": text(out), "stderr": text(err)})
        took_ms = round((time.monotonic() - self._began) * 1000)
        return CommandResult(
            self._id, end.exit_code, end.signal, out, err, self._is_cut["stdout"], self._is_cut["stderr"], took_ms,
            "agent",
        )  # fmt: skip

    def _say(self, stream: str, data: bytes, *, is_last: bool) -> None:
        call = self._call[stream]
        if call and (words := self._decoders[stream].decode(data, is_last)):
            call(words)


# Streams that end -----------------------------------------------------------------------------------------------


ENDS: dict[str, tuple[type[ApiError], int, str]] = {
    "released": (Conflict, 409, "not_assigned"),
    "revoked": (Unauthorized, 401, "authentication_failed"),
    "lost": (Failed, 502, "command_lost"),
}


def error_of_end(data: Json) -> ApiError:
    """Why a stream of output has ended before its command."""
    kind, status, code = ENDS.get(data["reason"], ENDS["lost"])
    return kind(status, {"code": code, "detail": data.get("detail", "")})


CLOSED: dict[int, tuple[type[ApiError], int, str]] = {
    4400: (Invalid, 422, "invalid"),
    4401: (Unauthorized, 401, "authentication_failed"),
    4403: (Forbidden, 403, "permission_denied"),
    4404: (NotFound, 404, "command_not_found"),
    4409: (Conflict, 409, "not_assigned"),
}
BUSY = 4429


def error_of_close(code: int, detail: str) -> ApiError | None:
    """The error that a WebSocket was closed with; None if it may be opened again."""
    if code not in CLOSED:
        return None
    kind, status, name = CLOSED[code]
    return kind(status, {"code": name, "detail": detail})


class Patience:
    """How long a stream that broke is opened again while nothing new comes."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self.reset()

    def reset(self) -> None:
        """Something new has come."""
        self._since: float | None = None
        self._opened: float | None = None
        self._pause_s = 0.05

    def opened(self) -> None:
        """A connection is open. If it stays so for a while, its end is a new one, even if nothing came."""
        self._opened = time.monotonic()

    def pause_s(self, broken: Exception | None = None) -> float:
        """How long to wait before the next attempt. Raises ``broken`` when the time is over, or Unreachable."""
        now = time.monotonic()
        if self._opened is not None and now - self._opened > STEADY_S:
            self.reset()
        self._opened = None
        if self._since is None:
            self._since = now
        elif now - self._since > self._limit_s:
            raise broken or Unreachable("The stream broke, and nothing more came.")
        self._pause_s = min(self._pause_s * 2, 2.0)
        return self._pause_s


def may_pass(error: ApiError) -> bool:
    """Whether a stream may be opened again after this: the server, or a proxy before it, is restarting or busy."""
    is_foreign = error.code == FOREIGN and error.status in (502, 503, 504)
    return is_foreign or isinstance(error, Unavailable | Throttled)
