from __future__ import annotations

import pytest
from cryptography.fernet import Fernet, InvalidToken
from django.db import connection

from boilerhouse.core import fields
from syncing.models import Credential


def test_the_database_holds_only_ciphertext_and_gives_the_value_back(db):
    Credential.objects.create(id="c", name="c", secret={"secretAccessKey": "plain-text-canary"})
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM syncing_credential")
        stored = bytes(cursor.fetchone()[0])

    assert b"plain-text-canary" not in stored
    assert Credential.objects.get().secret == {"secretAccessKey": "plain-text-canary"}


def test_an_older_key_still_opens_and_a_foreign_one_fails_loudly(db, settings):
    old = settings.BOILERHOUSE_ENCRYPTION_KEYS
    Credential.objects.create(id="c", name="c", secret={"a": "b"})
    settings.BOILERHOUSE_ENCRYPTION_KEYS = [Fernet.generate_key().decode(), *old]

    assert Credential.objects.get().secret == {"a": "b"}

    settings.BOILERHOUSE_ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    fields._cipher.cache_clear()
    with pytest.raises(InvalidToken):
        Credential.objects.get()
