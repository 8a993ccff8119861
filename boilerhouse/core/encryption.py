"""The keys that encrypt stored secrets, newest first, and their rotation while processes run.

The keys come from ``BOILERHOUSE_ENCRYPTION_KEYS`` or ``<data>/keys/encryption-key``. Each use checks whether the file
has changed, so all processes immediately use a key that ``rotate`` adds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.apps import apps
from django.conf import settings
from django.db import models
from django.db.models.functions import Cast

from boilerhouse.core import file_locks, keys
from boilerhouse.core.errors import Conflict

BATCH = 200


class Ciphertext(bytes):
    """A value of an encrypted field in its stored form; it is written unchanged."""


@dataclass(frozen=True, slots=True)
class _CachedKeys:
    stamp: tuple[str, int, int]
    keys: tuple[str, ...]


_cache: _CachedKeys | None = None


def key_file() -> Path:
    return Path(settings.BOILERHOUSE_DATA_DIR) / "keys" / "encryption-key"


def are_given() -> bool:
    """Whether the environment sets the keys. Then only the environment can change them."""
    return bool(settings.BOILERHOUSE_ENCRYPTION_KEYS)


def in_force() -> tuple[str, ...]:
    """All keys that can decrypt, newest first; the first one encrypts. Created on first use if none are configured."""
    global _cache
    if are_given():
        return tuple(settings.BOILERHOUSE_ENCRYPTION_KEYS)
    path = key_file()
    try:
        status = path.stat()
    except FileNotFoundError:
        keys.once(path, keys.new_fernet_key)
        status = path.stat()
    stamp = (str(path), status.st_ino, status.st_mtime_ns)
    if _cache is None or _cache.stamp != stamp:
        _cache = _CachedKeys(stamp, parse(path.read_text()))
    return _cache.keys


def parse(text: str) -> tuple[str, ...]:
    return tuple(key for part in text.split(",") if (key := part.strip()))


@cache
def _cipher(all_keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in all_keys])


def cipher() -> MultiFernet:
    return _cipher(in_force())


def rotate(*, forget_old: bool = False) -> dict[str, Any]:
    """Add a new first key and encrypt all values again. With ``forget_old``, create no key and delete all but the
    newest.

    Afterwards every row is encrypted with the newest key. The previous key is kept until the next rotation or
    ``forget_old``, because a process may still commit a value encrypted with it. If the rotation is killed, each row
    can still be decrypted with a stored key. Keys from the environment are not changed. Returns ``{keys, made,
    reencrypted: {model: rows}}``. Raises Conflict while another rotation runs.
    """
    if are_given():
        return {"keys": len(in_force()), "made": False, "reencrypted": _reencrypt()}
    with _alone():
        before = in_force()
        if not forget_old:
            keys.replace(key_file(), ",".join((keys.new_fernet_key(), *before)))
        counts = _reencrypt()
        # Keys older than the newest before this rotation: no process has encrypted with them since the last rotation.
        remaining = in_force()[: 1 if forget_old else 2]
        keys.replace(key_file(), ",".join(remaining))
        return {"keys": len(remaining), "made": not forget_old, "reencrypted": counts}


@contextmanager
def _alone() -> Iterator[None]:
    """Allow one rotation at a time in this data directory."""
    with file_locks.locked(key_file().with_name("rotation.lock")) as lock:
        if lock is None:
            raise Conflict("Another rotation is running.")
        yield


def encrypted_fields() -> Iterator[tuple[type[models.Model], str]]:
    from boilerhouse.core.fields import EncryptedJSONField

    for model in apps.get_models():
        for field in model._meta.concrete_fields:
            if isinstance(field, EncryptedJSONField):
                yield model, field.name


def _reencrypt() -> dict[str, int]:
    """Encrypt values with the newest key. A row that changes in between has been encrypted with it already."""
    newest, counts = Fernet(in_force()[0]), Counter[str]()
    for model, name in encrypted_fields():
        rows = model._base_manager.filter(**{f"{name}__isnull": False}).order_by("pk")
        raw = rows.annotate(_raw=Cast(name, models.BinaryField())).values_list("pk", "_raw")
        last: Any = None
        while batch := list((raw if last is None else raw.filter(pk__gt=last))[:BATCH]):
            last = batch[-1][0]
            for pk, stored in batch:
                token = Ciphertext(stored)
                if _opens(newest, token):
                    continue
                fresh = Ciphertext(newest.encrypt(cipher().decrypt(token)))
                counts[model._meta.label] += rows.filter(pk=pk, **{name: token}).update(**{name: fresh})
    return dict(counts)


def _opens(key: Fernet, token: bytes) -> bool:
    try:
        key.decrypt(token)
    except InvalidToken:
        return False
    return True
