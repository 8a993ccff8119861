"""What requests for files say, and what the answers show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers

from boilerhouse.api.pagination import boolean
from boilerhouse.api.serializers import ApiSerializer
from boilerhouse.core.errors import FieldError, Invalid
from pools.guest.file_frames import Entry, FileInfo
from tenants import file_links, files

ENCODINGS = ["utf-8", "percent"]
PATH = OpenApiParameter(
    "path", str, description="Absolute, or relative to the first volume that the tenant may write.", required=True
)
ANY_PATH = OpenApiParameter(
    "path", str, description="A directory: absolute, or relative to the first volume that the tenant may write."
)
PATH_ENCODING = OpenApiParameter(
    "pathEncoding",
    {"type": "string", "enum": ENCODINGS, "default": "utf-8"},
    description="`percent`: paths are percent-encoded once more, in the request and the answer. Names that are no UTF-8"
    " can be said in no other way.",
)
MODE = OpenApiParameter(
    "mode", {"type": "string", "pattern": "^[0-7]{3,4}$"}, description="Permission bits in octal, such as `0640`."
)
_MODE = re.compile(r"^[0-7]{3,4}\Z")
_RANGE = re.compile(r"^bytes=(\d{0,18})-(\d{0,18})\Z")


class FileOutput(ApiSerializer):
    path = serializers.CharField()
    path_encoding = serializers.ChoiceField(ENCODINGS)
    name = serializers.CharField()
    type = serializers.ChoiceField(["file", "directory", "symlink", "fifo", "socket", "device", "unknown"])
    size = serializers.IntegerField(help_text="Bytes.")
    mode = serializers.CharField(help_text="Permission bits in octal.")
    mtime = serializers.DateTimeField()
    target = serializers.CharField(allow_null=True, help_text="Where a link leads, as the link says it.")
    etag = serializers.CharField()


class FilePageOutput(ApiSerializer):
    items = FileOutput(many=True)
    next_cursor = serializers.CharField(allow_null=True)


class RemovedOutput(ApiSerializer):
    removed = serializers.IntegerField(help_text="Names that are gone.")


class UnpackedOutput(ApiSerializer):
    entries = serializers.IntegerField(help_text="Entries of the archive that were unpacked.")


class ModeField(serializers.RegexField):
    def __init__(self, **options: Any) -> None:
        super().__init__(_MODE, **options)


class MakeDirectoryInput(ApiSerializer):
    path = serializers.CharField(trim_whitespace=False)
    path_encoding = serializers.ChoiceField(ENCODINGS, default="utf-8")
    mode = ModeField(default="0755")
    parents = serializers.BooleanField(
        default=True, help_text="Make its parents too; an existing directory is no error."
    )


class MoveInput(ApiSerializer):
    to = serializers.CharField(trim_whitespace=False)
    path_encoding = serializers.ChoiceField(ENCODINGS, default="utf-8")
    overwrite = serializers.BooleanField(default=False)

    def get_fields(self) -> dict[str, Any]:
        return {"from": serializers.CharField(trim_whitespace=False, source="source"), **super().get_fields()}


class LinkInput(ApiSerializer):
    path = serializers.CharField(trim_whitespace=False)
    path_encoding = serializers.ChoiceField(ENCODINGS, default="utf-8")
    method = serializers.ChoiceField(["GET", "PUT"], default="GET")
    expires_in_s = serializers.IntegerField(min_value=1, max_value=file_links.MAX_S, default=3600)


class LinkOutput(ApiSerializer):
    url = serializers.CharField()
    method = serializers.CharField()
    expires_at = serializers.DateTimeField()


def is_percent(request: Any) -> bool:
    value = request.query_params.get("pathEncoding", "utf-8")
    if value not in ENCODINGS:
        raise Invalid(FieldError("", "Query parameter pathEncoding: must be utf-8 or percent", "invalid"))
    return bool(value == "percent")


def render_page(directory: bytes, entries: Sequence[Entry], *, has_more: bool, is_percent: bool) -> dict[str, Any]:
    """Entries of a directory, whose paths are relative to it."""
    base = directory.rstrip(b"/") + b"/"
    items = [render(base + entry.path, entry.info, is_percent=is_percent) for entry in entries]
    last = files.encode(entries[-1].path, is_percent=True)[0] if has_more else None
    return {"items": items, "nextCursor": last}


def cursor_of(request: Any) -> bytes:
    """The name after which a list of files goes on; empty for its beginning. Raises Invalid."""
    cursor = files.decode(request.query_params.get("cursor", ""), is_percent=True)
    if b"\0" in cursor or len(cursor) > 4000:
        raise Invalid(FieldError("", "Query parameter cursor: must be a nextCursor of this list", "invalid"))
    return cursor


def path_of(request: Any, *, is_required: bool = True) -> bytes:
    """The query's path as bytes. Raises Invalid."""
    text = request.query_params.get("path", "")
    if is_required and not text:
        raise Invalid(FieldError("", "Query parameter path: is required", "required"))
    return files.decode(text, is_percent=is_percent(request))


def body_path(data: dict[str, Any], name: str) -> bytes:
    return files.decode(data[name], is_percent=data["path_encoding"] == "percent")


def mode_of(request: Any) -> int | None:
    text = request.query_params.get("mode")
    if text is None:
        return None
    if not _MODE.match(text):
        raise Invalid(FieldError("", "Query parameter mode: must be octal permission bits, such as 0644", "invalid"))
    return int(text, 8)


def parents_of(request: Any) -> bool:
    return boolean(request, "parents")


def render(path: bytes, info: FileInfo, *, is_percent: bool) -> dict[str, Any]:
    text, is_encoded = files.encode(path, is_percent=is_percent)
    name, _ = files.encode(path.rpartition(b"/")[2] or b"/", is_percent=is_encoded)
    target = files.encode(info.target, is_percent=is_encoded)[0] if info.type == "symlink" else None
    return {
        "path": text, "pathEncoding": ENCODINGS[is_encoded], "name": name, "type": info.type, "size": info.size,
        "mode": f"{info.mode:04o}", "mtime": time_of(info.mtime_ns), "target": target, "etag": info.etag,
    }  # fmt: skip


def time_of(nanoseconds: int) -> str:
    """RFC 3339; the year is one that a date can have, whatever the tenant set."""
    seconds = min(max(nanoseconds // 10**9, -62_135_596_800), 253_402_300_799)
    at = datetime.fromtimestamp(0, UTC).timestamp() + seconds
    base = datetime.fromtimestamp(at, UTC) if seconds >= 0 else datetime(1970, 1, 1, tzinfo=UTC)
    return base.replace(microsecond=nanoseconds % 10**9 // 1000).isoformat().replace("+00:00", "Z")


def part_of(header: str | None, size: int) -> tuple[int, int] | None:
    """The first byte and the length that a ``Range`` asks for; None for the whole. Raises ValueError for none of it.

    Several ranges at once, and units other than bytes, are answered with the whole, as HTTP allows.
    """
    match = _RANGE.match((header or "").replace(" ", ""))
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        length = min(int(match[2]), size)
        if not length:
            raise ValueError("an empty part")
        return size - length, length
    first = int(match[1])
    last = min(int(match[2]), size - 1) if match[2] else size - 1
    if match[2] and int(match[2]) < first:
        return None
    if first >= size:
        raise ValueError("beyond the end")
    return first, last - first + 1


TYPE = {(200, "application/octet-stream"): OpenApiTypes.BINARY, (206, "application/octet-stream"): OpenApiTypes.BINARY}
