"""The keys that encrypt what is secret at rest, newest first, and their change while processes run.

Given by ``BOILERHOUSE_ENCRYPTION_KEYS``, or kept in ``<data>/keys/encryption-key``. The kept file is looked at before
each use, so that a key that ``rotate`` puts in front is everybody's at once.
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
    """A value of an encrypted field as it is stored; written as it is."""


@dataclass(frozen=True, slots=True)
class _Kept:
    stamp: tuple[str, int, int]
    keys: tuple[str, ...]


_kept: _Kept | None = None


def key_file() -> Path:
    return Path(settings.BOILERHOUSE_DATA_DIR) / "keys" / "encryption-key"


def are_given() -> bool:
    """Whether the environment gives the keys; then only the environment can change them."""
    return bool(settings.BOILERHOUSE_ENCRYPTION_KEYS)


def in_force() -> tuple[str, ...]:
    """All keys that open something, newest first; the first one encrypts. Made on first use where none is given."""
    global _kept
    if are_given():
        return tuple(settings.BOILERHOUSE_ENCRYPTION_KEYS)
    path = key_file()
    try:
        seen = path.stat()
    except FileNotFoundError:
        keys.once(path, keys.new_fernet_key)
        seen = path.stat()
    stamp = (str(path), seen.st_ino, seen.st_mtime_ns)
    if _kept is None or _kept.stamp != stamp:
        _kept = _Kept(stamp, parse(path.read_text()))
    return _kept.keys


def parse(text: str) -> tuple[str, ...]:
    return tuple(key for part in text.split(",") if (key := part.strip()))


@cache
def _cipher(all_keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in all_keys])


def cipher() -> MultiFernet:
    return _cipher(in_force())


def rotate(*, forget_old: bool = False) -> dict[str, Any]:
    """Put a new key in front and encrypt everything anew; with ``forget_old`` make no key and drop all but the newest.

    Afterwards every row is encrypted by the newest key. The one before stays behind it, for what a process that
    was just writing may still commit, until the next rotation or ``forget_old``. Killed at any instant, each row
    opens with a key that is kept. Where the environment gives the keys, they stay as they are.
    Returns ``{keys, made, reencrypted: {model: rows}}``. Raises Conflict while another rotation runs.
    """
    if are_given():
        return {"keys": len(in_force()), "made": False, "reencrypted": _reencrypt()}
    with _alone():
        before = in_force()
        if not forget_old:
            keys.replace(key_file(), ",".join((keys.new_fernet_key(), *before)))
        done = _reencrypt()
        # Older than what was newest before this rotation: nobody encrypted by those since the last one.
        left = in_force()[: 1 if forget_old else 2]
        keys.replace(key_file(), ",".join(left))
        return {"keys": len(left), "made": not forget_old, "reencrypted": done}


@contextmanager
def _alone() -> Iterator[None]:
    """One rotation at a time on this data directory."""
    with file_locks.held(key_file().with_name("rotation.lock")) as lock:
        if lock is None:
            raise Conflict("Another rotation is under way.")
        yield


def encrypted_fields() -> Iterator[tuple[type[models.Model], str]]:
    from boilerhouse.core.fields import EncryptedJSONField

    for model in apps.get_models():
        for field in model._meta.concrete_fields:
            if isinstance(field, EncryptedJSONField):
                yield model, field.name


def _reencrypt() -> dict[str, int]:
    """Encrypt by the newest key what is not; a row that changes meanwhile was written by the newest already."""
    newest, done = Fernet(in_force()[0]), Counter[str]()
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
                done[model._meta.label] += rows.filter(pk=pk, **{name: token}).update(**{name: fresh})
    return dict(done)


def _opens(key: Fernet, token: bytes) -> bool:
    try:
        key.decrypt(token)
    except InvalidToken:
        return False
    return True
