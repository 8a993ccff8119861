"""What requests for kept commands contain, and how a command is shown."""

from __future__ import annotations

import base64
import binascii
import signal
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from boilerhouse.api.serializers import ApiSerializer, StringMapField
from boilerhouse.core.errors import FieldError, Invalid
from pools.api.serializers import CommandField, ExecInput
from pools.guest import kept
from tenants import commands

MAX_SIDE = 1000
ENCODINGS = ["utf-8", "base64"]


class SizeField(ApiSerializer):
    cols = serializers.IntegerField(min_value=1, max_value=MAX_SIDE)
    rows = serializers.IntegerField(min_value=1, max_value=MAX_SIDE)


class CommandInput(ApiSerializer):
    command = CommandField(required=False, help_text="The program and its arguments; or give `script`.")
    script = serializers.CharField(
        required=False, trim_whitespace=False, help_text="Runs by `/bin/sh -c`, in place of `command`."
    )
    cwd = serializers.CharField(required=False, trim_whitespace=False, max_length=4096)
    env = StringMapField(required=False, help_text="In addition to the container's environment.")
    stdin = serializers.CharField(
        required=False, allow_null=True, allow_blank=True, trim_whitespace=False,
        help_text="With `wait: false`, its input then stays open for more.",
    )  # fmt: skip
    encoding = serializers.ChoiceField(ENCODINGS, default="utf-8", help_text="Of `stdin`, and of the output.")
    tty = SizeField(required=False, allow_null=True, help_text="Run it on a terminal of this size.")
    wait = serializers.BooleanField(default=True, help_text="Answer when it has ended.")

    def get_fields(self) -> dict[str, Any]:
        timeout = serializers.IntegerField(
            min_value=0, max_value=settings.BOILERHOUSE_EXEC_TIMEOUT_MAX_MS, required=False, source="timeout_ms",
            help_text="Then the command and its children are killed. 0: never. Default: 60000 with `wait`, else 0.",
        )  # fmt: skip
        return {**super().get_fields(), "timeoutMs": timeout}

    def validate_command(self, command: list[str]) -> list[str]:
        return ExecInput().validate_command(command)

    def validate_script(self, script: str) -> str:
        return str(ExecInput().validate_command([script])[0])

    def validate_env(self, env: dict[str, str]) -> dict[str, str]:
        if any(not name or "=" in name or "\0" in name + value for name, value in env.items()):
            raise ValidationError("A name has no =, and neither it nor its value has NUL.", "invalid")
        size = sum(len(f"{name}={value}".encode("utf-8", "surrogatepass")) for name, value in env.items())
        if size > settings.BOILERHOUSE_EXEC_COMMAND_MAX_BYTES or len(env) > 1000:
            raise ValidationError(f"It has {len(env)} variables and {size} bytes, which is too large.", "too_large")
        return env

    def validate_cwd(self, cwd: str) -> str:
        if not cwd.startswith("/") or "\0" in cwd:
            raise ValidationError("Give an absolute path.", "invalid")
        return cwd

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("command" in attrs) == ("script" in attrs):
            raise ValidationError({"command": [ErrorDetail("Give either command or script.", "required")]})
        if attrs.get("tty") and attrs["wait"] and attrs.get("stdin") is not None:
            detail = "A terminal's input has no end, so nothing can be waited for. Say wait: false."
            raise ValidationError({"stdin": [ErrorDetail(detail, "invalid")]})
        return attrs


def wish_of(data: dict[str, Any]) -> commands.Wish:
    """Raises Invalid."""
    given, tty = data.get("stdin"), data.get("tty")
    return commands.Wish(
        command=tuple(data.get("command", ())), script=data.get("script"), cwd=data.get("cwd"), env=data.get("env", {}),
        stdin=None if given is None else decoded(given, data["encoding"], "/stdin"), timeout_ms=data.get("timeout_ms"),
        size=(tty["cols"], tty["rows"]) if tty else None,
    )  # fmt: skip


def decoded(given: str, encoding: str, pointer: str) -> bytes:
    """The bytes of input. Raises Invalid."""
    try:
        is_text = encoding == "utf-8"
        content = given.encode("utf-8", "surrogatepass") if is_text else base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid(FieldError(pointer, "Not valid base64.", "invalid")) from None
    highest = settings.BOILERHOUSE_EXEC_STDIN_MAX_BYTES
    if len(content) > highest:
        raise Invalid(FieldError(pointer, f"It has {len(content)} bytes; the limit is {highest}.", "too_large"))
    return content


def encoded(data: bytes, encoding: str) -> str:
    """Bytes of output as the request wants them; with utf-8, what is none becomes replacement characters."""
    return base64.b64encode(data).decode() if encoding == "base64" else data.decode("utf-8", errors="replace")


class FinishedCommandOutput(ApiSerializer):
    command_id = serializers.CharField()
    exit_code = serializers.IntegerField()
    signal = serializers.CharField(allow_null=True, help_text="The signal that ended it, such as `SIGKILL`.")
    stdout = serializers.CharField()
    stderr = serializers.CharField()
    truncated = serializers.BooleanField()
    stdout_truncated = serializers.BooleanField()
    stderr_truncated = serializers.BooleanField()
    duration_ms = serializers.IntegerField()
    via = serializers.ChoiceField(["agent", "engine"])


class StartedCommandOutput(ApiSerializer):
    command_id = serializers.CharField()
    state = serializers.ChoiceField(["running"])
    started_at = serializers.DateTimeField()


class CommandOutput(ApiSerializer):
    command_id = serializers.CharField()
    state = serializers.ChoiceField([state.value for state in kept.State])
    command = serializers.ListField(child=serializers.CharField(), allow_null=True)
    script = serializers.CharField(allow_null=True)
    cwd = serializers.CharField(allow_null=True)
    tty = serializers.BooleanField()
    pid = serializers.IntegerField(help_text="In the container.")
    started_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField(allow_null=True)
    exit_code = serializers.IntegerField(allow_null=True)
    signal = serializers.CharField(allow_null=True)
    timed_out = serializers.BooleanField()


class CommandListOutput(ApiSerializer):
    items = CommandOutput(many=True)


class StdinInput(ApiSerializer):
    data = serializers.CharField(  # type: ignore[assignment]  # the API's name
        required=False, default="", allow_blank=True, trim_whitespace=False
    )
    encoding = serializers.ChoiceField(ENCODINGS, default="utf-8")
    close = serializers.BooleanField(default=False, help_text="End the command's input afterwards.")


class SignalInput(ApiSerializer):
    signal = serializers.ChoiceField(list(commands.SIGNALS))


def render_finished(done: commands.Finished, encoding: str) -> dict[str, Any]:
    return {
        "commandId": done.command_id, "exitCode": done.exit_code, "signal": name_of(done.signal),
        "stdout": encoded(done.stdout, encoding), "stderr": encoded(done.stderr, encoding),
        "truncated": done.stdout_truncated or done.stderr_truncated, "stdoutTruncated": done.stdout_truncated,
        "stderrTruncated": done.stderr_truncated, "durationMs": done.duration_ms, "via": done.via,
    }  # fmt: skip


def render_started(running: commands.Running) -> dict[str, Any]:
    return {"commandId": running.command_id, "state": "running", "startedAt": _time(running.started_ms)}


def render_command(entry: kept.Entry) -> dict[str, Any]:
    """What the container says of it is the tenant's own word: only text of the expected types is shown."""
    status, note = entry.status, entry.note
    words = note.get("command")
    is_list = isinstance(words, list) and all(isinstance(word, str) for word in words)
    return {
        "commandId": entry.id, "state": status.state.value, "command": words if is_list else None,
        "script": _text(note.get("script")), "cwd": _text(note.get("cwd")), "tty": status.is_terminal,
        "pid": status.pid, "startedAt": _time(status.started_ms),
        "endedAt": _time(status.ended_ms) if status.ended_ms else None, "exitCode": status.exit_code,
        "signal": name_of(status.signal), "timedOut": status.timed_out,
    }  # fmt: skip


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _time(since_1970_ms: int) -> str:
    return datetime.fromtimestamp(since_1970_ms / 1000, UTC).isoformat().replace("+00:00", "Z")


def name_of(number: int | None) -> str | None:
    if number is None:
        return None
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
