"""The rclone flags that a spec may add: exact names, typed values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

_SIZE, _NUMBER = r"\d{1,9}[KMG]?", r"\d{1,2}"
_BOOL = r"true|false"
_ARCHIVES = r"(?:GLACIER|DEEP_ARCHIVE|ARCHIVE|COLD_ARCHIVE|DEEP_COLD_ARCHIVE)\Z"
"""Storage classes whose objects take hours to retrieve, which no claim can wait for."""
KMS = "aws:kms"
ALLOWED_FLAGS = {
    "--s3-upload-cutoff": _SIZE,
    "--s3-chunk-size": _SIZE,
    "--s3-upload-concurrency": _NUMBER,
    "--s3-storage-class": rf"(?!{_ARCHIVES})[A-Z_]{{1,30}}",
    "--s3-acl": r"private",
    "--s3-server-side-encryption": rf"AES256|{KMS}",
    "--s3-sse-kms-key-id": r"[A-Za-z0-9:/_-]{1,200}",
    "--s3-requester-pays": _BOOL,
    "--s3-force-path-style": _BOOL,
    "--transfers": r"[1-9]|[1-5]\d|6[0-4]",
    "--checkers": r"[1-9]|[1-5]\d|6[0-4]",
    "--bwlimit": r"\d{1,6}[KMG]?",
    "--tpslimit": r"\d{1,5}",
    "--buffer-size": r"\d{1,2}M",
    "--multi-thread-streams": _NUMBER,
}


_GONE = {
    "--s3-disable-checksum": "without checksums, a change that keeps a file's size would not be saved",
}


def check_flag(flag: str) -> str | None:
    """Why an rclone flag is not allowed; None if it is."""
    name, equals, value = flag.partition("=")
    if name in _GONE:
        return f"The flag {name} is no longer allowed: {_GONE[name]}. Leave it out."
    if name not in ALLOWED_FLAGS:
        return f"The flag {name[:60]} is not allowed."
    if not equals or not re.fullmatch(ALLOWED_FLAGS[name], value):
        return f"Write {name}=VALUE with a valid value."
    return None


_CARRIED = {
    "--s3-server-side-encryption": "ServerSideEncryption",
    "--s3-sse-kms-key-id": "SSEKMSKeyId",
    "--s3-acl": "ACL",
}


@dataclass(frozen=True, slots=True)
class Carried:
    """Parts of a spec's rclone flags that apply to every S3 request, because a bucket may require them."""

    parameters: tuple[tuple[str, str], ...] = ()
    """Parameters of S3 operations; each applies to the operations that have it."""
    storage_class: str = ""
    """Only for data, because every claim reads Boilerhouse's own small objects."""
    has_path_style: bool = True
    """False if the bucket is part of the host name."""

    @classmethod
    def by(cls, flags: Sequence[str]) -> Self:
        """As rclone reads them: the last one of a name counts."""
        values = {name: value for name, _, value in (flag.partition("=") for flag in flags)}
        parameters = [(parameter, values[flag]) for flag, parameter in _CARRIED.items() if values.get(flag)]
        if values.get("--s3-requester-pays") == "true":
            parameters.append(("RequestPayer", "requester"))
        has_path_style = values.get("--s3-force-path-style") != "false"
        return cls(tuple(parameters), values.get("--s3-storage-class", ""), has_path_style)
