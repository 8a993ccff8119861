from __future__ import annotations

import json

import pytest
from cryptography.fernet import Fernet, InvalidToken
from django.db import connection

from boilerhouse.core import encryption
from boilerhouse.core.errors import Conflict
from syncing.models import Credential


def test_the_database_holds_only_ciphertext_and_gives_the_value_back(db):
    Credential.objects.create(id="c", name="c", secret={"secretAccessKey": "plain-text-canary"})
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM syncing_credential")
        stored = bytes(cursor.fetchone()[0])

    assert b"plain-text-canary" not in stored
    assert Credential.objects.get().secret == {"secretAccessKey": "plain-text-canary"}


def test_an_older_key_still_opens_and_a_foreign_one_fails_loudly(db, settings):
    old = encryption.in_force()
    Credential.objects.create(id="c", name="c", secret={"a": "b"})
    settings.BOILERHOUSE_ENCRYPTION_KEYS = [Fernet.generate_key().decode(), *old]

    assert Credential.objects.get().secret == {"a": "b"}

    settings.BOILERHOUSE_ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    with pytest.raises(InvalidToken):
        Credential.objects.get()


def stored() -> bytes:
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM syncing_credential")
        return bytes(cursor.fetchone()[0])


def test_a_rotation_encrypts_everything_anew_and_a_second_one_forgets_the_first_key(data_dir):
    (first,) = encryption.in_force()
    Credential.objects.create(id="c", name="c", secret={"a": "b"})

    done = encryption.rotate()

    newest, kept = encryption.in_force()
    assert done == {"keys": 2, "made": True, "reencrypted": {"syncing.Credential": 1}}
    assert kept == first != newest
    assert encryption.key_file().stat().st_mode & 0o777 == 0o600
    assert json.loads(Fernet(newest).decrypt(stored())) == {"a": "b"}
    assert Credential.objects.get().secret == {"a": "b"}

    assert encryption.rotate(forget_old=True) == {"keys": 1, "made": False, "reencrypted": {}}
    assert encryption.in_force() == (newest,)
    assert Credential.objects.get().secret == {"a": "b"}


def test_what_another_process_was_still_writing_by_the_old_key_opens_until_it_is_forgotten(data_dir):
    (first,) = encryption.in_force()
    encryption.rotate()
    late = encryption.Ciphertext(Fernet(first).encrypt(b'{"late": true}'))
    Credential.objects.create(id="late", name="late", secret=late)

    assert Credential.objects.get().secret == {"late": True}
    assert encryption.rotate(forget_old=True)["reencrypted"] == {"syncing.Credential": 1}
    assert Credential.objects.get().secret == {"late": True}


def test_a_running_process_uses_the_new_key_at_once(data_dir):
    """It rereads the file, which another process has changed."""
    before = encryption.in_force()
    draft = encryption.key_file().with_name("draft")
    draft.write_text(",".join([Fernet.generate_key().decode(), *before]))
    draft.rename(encryption.key_file())

    Credential.objects.create(id="c", name="c", secret={"a": "b"})

    assert encryption.in_force()[1:] == before
    assert Fernet(encryption.in_force()[0]).decrypt(stored())


def test_a_rotation_that_is_killed_leaves_every_row_readable(data_dir, monkeypatch):
    for number in range(3):
        Credential.objects.create(id=f"c{number}", name="c", secret={"number": number})

    def killed() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(encryption, "_reencrypt", killed)
    with pytest.raises(KeyboardInterrupt):
        encryption.rotate()
    monkeypatch.undo()

    assert [c.secret["number"] for c in Credential.objects.order_by("id")] == [0, 1, 2]
    assert encryption.rotate()["reencrypted"] == {"syncing.Credential": 3}
    assert [c.secret["number"] for c in Credential.objects.order_by("id")] == [0, 1, 2]


def test_two_rotations_at_once_are_refused(data_dir):
    encryption.in_force()
    with encryption._alone(), pytest.raises(Conflict):
        encryption.rotate()


def test_keys_of_the_environment_stay_and_the_first_of_them_encrypts(data_dir, settings):
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    settings.BOILERHOUSE_ENCRYPTION_KEYS = [old]
    Credential.objects.create(id="c", name="c", secret={"a": "b"})
    settings.BOILERHOUSE_ENCRYPTION_KEYS = [new, old]

    assert encryption.rotate() == {"keys": 2, "made": False, "reencrypted": {"syncing.Credential": 1}}
    settings.BOILERHOUSE_ENCRYPTION_KEYS = [new]
    assert Credential.objects.get().secret == {"a": "b"}
