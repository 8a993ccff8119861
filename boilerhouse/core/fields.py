"""Encrypted JSON fields: MultiFernet, keys newest first, without any silent fallback to ciphertext."""

from __future__ import annotations

import json
from typing import Any

from django.db import models

from boilerhouse.core.encryption import Ciphertext, cipher


class EncryptedJSONField(models.BinaryField):  # type: ignore[type-arg]
    """A JSON value, stored encrypted. Raises ``InvalidToken`` if no key can decrypt it."""

    def get_prep_value(self, value: Any) -> bytes | None:
        if value is None or isinstance(value, Ciphertext):
            return value
        return cipher().encrypt(json.dumps(value).encode())

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        value = value if prepared else self.get_prep_value(value)
        return None if value is None else connection.Database.Binary(value)

    def from_db_value(self, value: Any, _expression: Any, _connection: Any) -> Any:
        return None if value is None else json.loads(cipher().decrypt(bytes(value)))

    def to_python(self, value: Any) -> Any:
        return value

    def value_to_string(self, obj: models.Model) -> str:
        raise TypeError("encrypted values are not serialized")
