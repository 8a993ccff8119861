"""Selects the login for a registry: the stored credential whose path matches the image best."""

from __future__ import annotations

from pools import references
from pools.models import RegistryCredential
from pools.references import InvalidReference, Reference
from pools.runtime.base import RegistryLogin

ALIASES = frozenset({"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})
"""Other host names of Docker Hub."""


def registry_name(host: str) -> str:
    """The canonical spelling of a registry's host."""
    host = host.lower()
    return references.DEFAULT_REGISTRY if host in ALIASES else host


def places(reference: Reference) -> list[str]:
    """All prefixes of the image's name, longest first: its repository, each path above it, its registry."""
    if reference.is_id:
        return []
    parts = [registry_name(reference.registry), *reference.repository.split("/")]
    return ["/".join(parts[:length]) for length in range(len(parts), 0, -1)]


def places_of(image: str) -> list[str]:
    """The same for an image as a workload names it; empty if it is not a reference."""
    try:
        return places(references.parse(image))
    except InvalidReference:
        return []


def login_for(reference: Reference) -> RegistryLogin | None:
    """The credential for the image; None: the engine's client configuration of root on this host applies."""
    near = places(reference)
    by_registry = {
        credential.registry: credential for credential in RegistryCredential.objects.filter(registry__in=near)
    }
    chosen = next((by_registry[place] for place in near if place in by_registry), None)
    if chosen is None:
        return None
    return login_of(chosen)


def login_of(credential: RegistryCredential) -> RegistryLogin:
    """The login for its registry."""
    secret = credential.secret
    return RegistryLogin(
        secret.get("username", ""), secret.get("password", ""), secret.get("identityToken", ""), credential.pk
    )


def host_of(credential: RegistryCredential) -> str:
    """The registry of the credential's place."""
    return credential.registry.partition("/")[0]
