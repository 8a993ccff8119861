"""Structured logs on stderr: JSON or console lines, with request id, tenant and container."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from typing import Any

import structlog

from boilerhouse.core.text import one_line, printable

_LOOKS_SECRET = re.compile(
    r"bh_[A-Za-z0-9]{8,}[A-Za-z0-9_-]*|(?<=://)[^/@\s:]+:[^/@\s]+(?=@)|(?i:bearer|basic) [\w.~+/=-]{8,}"
)
"""API keys, names and passwords in URLs, and values of Authorization headers."""
_LINK_TOKEN = re.compile(r"(?<![0-9a-z])[0-9a-z]{6}-[0-9a-f]{32}(?![0-9a-f])")
"""The token in a login link."""
_TOKEN_LENGTH = 39
SECRET_WORDS = ("secret", "password", "token", "authorization", "key_hash", "api_key")


def redact(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Replace values of keys that name a secret, at any depth, and everything that looks like a key. This is the last
    safeguard."""
    return {name: _clean(name, value) for name, value in event.items()}


def _clean(name: str, value: Any) -> Any:
    if any(word in name.lower() for word in SECRET_WORDS):
        return "[redacted]"
    match value:
        case str():
            if len(value) >= _TOKEN_LENGTH and "-" in value:
                value = _LINK_TOKEN.sub("[redacted]", value)
            return _LOOKS_SECRET.sub("[redacted]", value)
        case dict():
            return {key: _clean(str(key), inner) for key, inner in value.items()}
        case list() | tuple():
            return [_clean("", inner) for inner in value]
    return value


def printable_values(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape control characters, at any depth. Only tracebacks keep their lines."""
    return {name: _shown(value, printable if name in LONG else one_line) for name, value in event.items()}


LONG = ("exception", "stack")


def _shown(value: Any, show: Callable[[str], str]) -> Any:
    match value:
        case str():
            return show(value)
        case dict():
            return {_shown(key, show): _shown(inner, show) for key, inner in value.items()}
        case list() | tuple():
            return [_shown(inner, show) for inner in value]
        case None | bool() | int() | float():
            return value
    return show(str(value))


def configure(style: str, level: str) -> None:
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,  # never with the values of variables
        redact,
    ]
    rendering: list[structlog.typing.Processor] = (
        [structlog.processors.JSONRenderer()]  # which escapes everything except ASCII
        if style == "json"
        else [
            printable_values,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in (
        "daphne",
        "urllib3",
        "httpx",
        "httpcore",
        "websockets",
        "botocore",
        "boto3",
        "docker",
        "asyncio",
        "django.channels",
        "django-q",
    ):
        logging.getLogger(noisy).setLevel("WARNING")
    logging.getLogger("django.request").setLevel("CRITICAL")  # our middleware writes one line per request
