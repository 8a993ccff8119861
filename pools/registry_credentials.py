"""Operations on registry credentials: encrypted, selected by an image's name, never shown again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import IntegrityError

from boilerhouse.core import audit, clock
from boilerhouse.core.events import recording
from boilerhouse.queues.tasks import enqueue
from pools.errors import IdTaken, RegistryCredentialInUse, RegistryCredentialNotFound, RegistryTaken
from pools.models import Pool, RegistryCredential, Workload
from pools.registry_logins import places_of
from pools.services import try_again, unused_id
from pools.spec import WorkloadSpec


def users() -> dict[str, list[str]]:
    """The workloads that use each credential: credential id → workload ids."""
    stored = dict(RegistryCredential.objects.values_list("registry", "pk"))
    result: dict[str, list[str]] = {pk: [] for pk in stored.values()}
    for workload in Workload.objects.with_latest().order_by("pk"):
        image = WorkloadSpec.from_json(workload.latest_spec_json).image  # type: ignore[attr-defined]
        place = next((candidate for candidate in places_of(image) if candidate in stored), None)
        if place is not None:
            result[stored[place]].append(workload.pk)
    return result


def find(credential_id: str) -> RegistryCredential:
    """Raises RegistryCredentialNotFound."""
    credential = RegistryCredential.objects.filter(pk=credential_id).first()
    if credential is None:
        raise RegistryCredentialNotFound(f"No registry credential {credential_id}.")
    return credential


def create(*, id: str | None, name: str, registry: str, secret: dict[str, str]) -> RegistryCredential:
    """Store access to a registry; pools that fail to start for lack of it retry immediately. Raises IdTaken,
    RegistryTaken."""
    try:
        with recording():
            _refuse_second(registry)
            pk = unused_id(id, name, RegistryCredential.objects.all())
            audit.record("registry-credential.create", pk, after=_audited(name, registry, secret))
            credential = RegistryCredential.objects.create(id=pk, name=name, registry=registry, secret=secret)
            _try_again(registry)
            return credential
    except IntegrityError as error:
        _refuse_second(registry)
        raise IdTaken from error


def _refuse_second(registry: str) -> None:
    if other := RegistryCredential.objects.filter(registry=registry).first():
        raise RegistryTaken(f"{registry} already has the credential {other.pk}. Replace that one.")


def replace(
    credential: RegistryCredential,
    *,
    name: str,
    secret: dict[str, str],
    check: Callable[[RegistryCredential], None] = lambda _locked: None,
) -> None:
    """Replace it: the next pull uses the new one, and pools that fail to start for lack of it retry immediately.

    ``check`` gets the locked row first and raises an error to reject the change.
    """
    with recording():
        credential = RegistryCredential.objects.select_for_update().get(pk=credential.pk)
        check(credential)
        before = _audited(credential.name, credential.registry, credential.secret)
        after = _audited(name, credential.registry, secret)
        after |= {"secret": "changed"} if credential.secret != secret else {}
        audit.record("registry-credential.update", credential.pk, **audit.changes(before, after))
        credential.name, credential.secret, credential.updated_at = name, secret, clock.now()
        credential.save(update_fields=["name", "secret", "updated_at"])
        _try_again(credential.registry)


def delete(credential: RegistryCredential, *, force: bool = False) -> None:
    """Delete it. Raises RegistryCredentialInUse with the workloads that use it, unless ``force``.

    Images on this node stay and start as before.
    """
    with recording():
        used = users().get(credential.pk, [])
        if used and not force:
            raise RegistryCredentialInUse(f"The workloads {', '.join(used)} use it to pull their images.")
        before = _audited(credential.name, credential.registry, credential.secret)
        audit.record("registry-credential.delete", credential.pk, before=before)
        credential.delete()


def _audited(name: str, registry: str, secret: dict[str, str]) -> dict[str, Any]:
    return {"name": name, "registry": registry, "username": secret.get("username")}


def _try_again(registry: str) -> None:
    """Let pools with an image at that registry, and that cannot start or roll, retry now."""
    for pool in Pool.objects.exclude(trouble="").select_related("workload").order_by("pk"):
        if registry in places_of(pool.workload.latest.spec.image):
            try_again(pool.pk)
            enqueue("pool", "pools.tasks.refill", pool.pk)
