"""Operations on stored credentials: encrypted, referenced by id, never shown again."""

from __future__ import annotations

from collections.abc import Callable

from django.db import IntegrityError
from django.db.models import ProtectedError

from boilerhouse.core import audit
from boilerhouse.core.events import recording
from boilerhouse.queues.tasks import enqueue
from pools.errors import IdTaken
from pools.services import unused_id
from syncing import places
from syncing.errors import CredentialInUse, CredentialNotFound
from syncing.models import Credential
from syncing.services import CHANGED


def find(credential_id: str) -> Credential:
    """Raises CredentialNotFound."""
    credential = Credential.objects.prefetch_related("syncspec_set").filter(pk=credential_id).first()
    if credential is None:
        raise CredentialNotFound(f"No credential {credential_id}.")
    return credential


def create(*, id: str | None, name: str, access_key_id: str, secret_access_key: str) -> Credential:
    """Raises IdTaken."""
    secret = {"accessKeyId": access_key_id, "secretAccessKey": secret_access_key}
    try:
        with recording():
            pk = unused_id(id, name, Credential.objects.all())
            audit.record("credential.create", pk, after={"name": name, "accessKeyId": access_key_id})
            return Credential.objects.create(id=pk, name=name, secret=secret)
    except IntegrityError as error:
        raise IdTaken from error


def replace(
    credential: Credential,
    *,
    name: str,
    access_key_id: str,
    secret_access_key: str,
    check: Callable[[Credential], None] = lambda _locked: None,
) -> None:
    """Replace it: running transfers continue with the old secret, later ones use the new one; sinks are probed again.

    ``check`` gets the locked row first and raises an error to reject the change.
    """
    with recording():
        credential = Credential.objects.select_for_update().get(pk=credential.pk)
        check(credential)
        before = {"name": credential.name, "accessKeyId": credential.secret["accessKeyId"]}
        is_rotated = credential.secret["secretAccessKey"] != secret_access_key
        after = {"name": name, "accessKeyId": access_key_id, "secretAccessKey": "changed" if is_rotated else None}
        audit.record("credential.update", credential.pk, **audit.changes(before, after))
        credential.name = name
        credential.secret = {"accessKeyId": access_key_id, "secretAccessKey": secret_access_key}
        credential.save(update_fields=["name", "secret"])
        places.doubt(credential.syncspec_set.all())  # with other keys, the name may mean another bucket
        for spec_id in credential.syncspec_set.values_list("pk", flat=True):
            enqueue("sync", "tenants.tasks.probe_sink", spec_id, CHANGED)


def delete(credential: Credential) -> None:
    """Raises CredentialInUse with the specs' names."""
    try:
        with recording():
            audit.record("credential.delete", credential.pk, before={"name": credential.name})
            credential.delete()
    except ProtectedError as error:
        users = ", ".join(sorted(credential.syncspec_set.values_list("pk", flat=True)))
        raise CredentialInUse(f"The sync specs {users} use it.") from error
