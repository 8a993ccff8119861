"""The errors for a sink's refusals: its message is kept, and a remedy is added."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from syncing import errors

MAX_WORDS = 300
LONGEST_AFTER_S = 60.0

_THROTTLED = frozenset({
    "SlowDown", "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestLimitExceeded",
    "TooManyRequests", "TooManyRequestsException", "BandwidthLimitExceeded", "ServiceUnavailable",
})  # fmt: skip
_ELSEWHERE = frozenset({
    "PermanentRedirect", "TemporaryRedirect", "Redirect", "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
})  # fmt: skip
_BRING_BACK = "It lies in an archive; bring it back there first."
_FULL = frozenset({"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull"})


def words(text: object) -> str:
    """A server's message, made printable, in one line of bounded length."""
    line = " ".join(str(text or "").split())
    printable = "".join(char for char in line if char.isprintable())
    return printable if len(printable) <= MAX_WORDS else f"{printable[:MAX_WORDS]}…"


_DAV_ERROR = re.compile(r"<(?:\w+:)?error\b[^<>]*DAV:", re.IGNORECASE)
_SENTENCE = re.compile(r"<(?:\w+:)?(?:message|responsedescription)\b[^<>]*>([^<]*)</", re.IGNORECASE)
"""Neither pattern reads beyond the next tag, so opening many of them gains nothing."""


def sentence_of(content: bytes) -> str:
    """The message in a WebDAV error body; empty for any other body.

    An endpoint may be any server that this node reaches; other content is not disclosed.
    """
    text = content[:20_000].decode(errors="replace")
    match = _SENTENCE.search(text) if _DAV_ERROR.search(text) else None
    return html.unescape(match[1]).strip() if match else ""


def after_s(header: str | None) -> float:
    """The seconds of a Retry-After header; 0 without a usable one."""
    if not header:
        return 0
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return 0
    return min(max(0.0, seconds), LONGEST_AFTER_S)


def of_s3(where: str, response: Mapping[str, Any]) -> errors.SyncFailed:
    """The error for a response of S3; ``response`` as parsed by botocore."""
    error_body, about = response.get("Error", {}), response.get("ResponseMetadata", {})
    code, status, headers = (
        str(error_body.get("Code", "")),
        about.get("HTTPStatusCode", 0),
        about.get("HTTPHeaders", {}),
    )
    message = f"The {where} answered {status} {words(code)}"
    message = f"{message}: {sentence}" if (sentence := words(error_body.get("Message"))) else f"{message}."
    if code == "NoSuchBucket":
        return errors.SinkMissing(f"The {where} does not exist.")
    region = region_of(response)
    if region or status in (301, 302, 307) or code in _ELSEWHERE - {"AuthorizationHeaderMalformed"}:
        return errors.SinkElsewhere(f"{message} {_set_region(region)}")
    if code == "RequestTimeTooSkewed":
        return errors.ClockSkewed(f"{message} {_set_clock(error_body.get('ServerTime'), headers.get('date'))}")
    if code in _FULL or status == 507:
        return errors.DiskFull(message)
    if code in _THROTTLED or status in (429, 503):
        return errors.SinkThrottled(message, after_s(headers.get("retry-after")))
    if code == "InvalidObjectState":
        return errors.SinkArchived(f"{message} {_BRING_BACK}")
    if status in (401, 403):
        return errors.SinkDenied(message)
    if status == 408 or code == "RequestTimeout" or (status >= 500 and status != 501):
        return errors.SinkStumbled(message)
    return errors.SinkRefused(message)


def region_of(response: Mapping[str, Any]) -> str:
    """The region that a refusal names as the bucket's; empty for any other refusal."""
    error_body, about = response.get("Error", {}), response.get("ResponseMetadata", {})
    is_refused = about.get("HTTPStatusCode", 0) in (301, 302, 307) or error_body.get("Code") in _ELSEWHERE
    return (
        words(about.get("HTTPHeaders", {}).get("x-amz-bucket-region") or error_body.get("Region")) if is_refused else ""
    )


Signs = tuple[tuple[tuple[str, ...], type[errors.SyncFailed]], ...]
"""Patterns in rclone's messages, in lower case, and their errors; the first match counts."""


def of_rclone(lines: list[str], signs_of_kind: Signs) -> errors.SyncFailed | None:
    """The error for rclone's lines by these patterns; None if none matches."""
    lower = "\n".join(lines).lower()
    for signs, kind in signs_of_kind:
        if any(sign in lower for sign in signs):
            message = next(line for line in lines if any(sign in line.lower() for sign in signs))
            if kind is errors.SinkElsewhere:
                match = re.search(r"(?:expecting|set region to) ['\"]([a-z0-9-]+)['\"]", "\n".join(lines))
                message = f"{message} {_set_region(match[1] if match else '')}"
            if kind is errors.ClockSkewed:
                message = f"{message} {_set_clock(None, None)}"
            if kind is errors.SinkArchived:
                message = f"{message} {_BRING_BACK}"
            return kind(message)
    return None


def _set_region(region: str) -> str:
    return f"The bucket is in {region}; set region." if region else "Set the bucket's own region and endpoint."


def _set_clock(server_time: object, date: object) -> str:
    now, theirs = datetime.now(UTC), _time(server_time) or _time(date)
    if theirs is None or abs(theirs - now) < timedelta(minutes=1):
        return "Set this machine's clock, or the sink's."
    minutes = round(abs((theirs - now).total_seconds()) / 60)
    way = "behind" if theirs > now else "ahead of"
    return f"This machine's clock is {minutes} minutes {way} the sink's; set it (NTP)."


def _time(text: object) -> datetime | None:
    """A date in ISO 8601 or HTTP format; None for anything else."""
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            at = parse(str(text))
        except (ValueError, TypeError):
            continue
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    return None
