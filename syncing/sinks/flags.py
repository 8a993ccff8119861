"""The rclone flags that a spec may add: exact names, typed values (facts: rclone §7)."""

from __future__ import annotations

import re

_SIZE, _NUMBER = r"\d{1,9}[KMG]?", r"\d{1,2}"
_BOOL = r"true|false"
ALLOWED_FLAGS = {
    "--s3-upload-cutoff": _SIZE,
    "--s3-chunk-size": _SIZE,
    "--s3-upload-concurrency": _NUMBER,
    "--s3-storage-class": r"[A-Z_]{1,30}",
    "--s3-acl": r"private",
    "--s3-server-side-encryption": r"AES256|aws:kms",
    "--s3-sse-kms-key-id": r"[A-Za-z0-9:/_-]{1,200}",
    "--s3-requester-pays": _BOOL,
    "--transfers": r"[1-9]|[1-5]\d|6[0-4]",
    "--checkers": r"[1-9]|[1-5]\d|6[0-4]",
    "--bwlimit": r"\d{1,6}[KMG]?",
    "--tpslimit": r"\d{1,5}",
    "--buffer-size": r"\d{1,2}M",
    "--multi-thread-streams": _NUMBER,
}


_GONE = {
    "--s3-disable-checksum": "without checksums a change that leaves a file's size as it was would not be saved",
}


def check_flag(flag: str) -> str | None:
    """What is wrong with one rclone flag; None if it may be used."""
    name, equals, value = flag.partition("=")
    if name in _GONE:
        return f"The flag {name} is no longer allowed: {_GONE[name]}. Leave it out."
    if name not in ALLOWED_FLAGS:
        return f"The flag {name[:60]} is not allowed."
    if not equals or not re.fullmatch(ALLOWED_FLAGS[name], value):
        return f"Write {name}=VALUE with a value that fits."
    return None
