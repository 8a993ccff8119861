"""Why an image could not be pulled: the engine's message, the kind of failure, and the remedy."""

from __future__ import annotations

import re

from django.db.models import TextChoices

from pools.errors import EngineFailure, ImageMissing
from pools.references import DEFAULT_REGISTRY, Reference
from pools.runtime.base import RegistryLogin


class PullFault(TextChoices):
    """The kind of failure."""

    NO_SPACE = "no_space"
    """The engine's disk is full."""
    NO_PLATFORM = "no_platform"
    """The image was not built for this machine's platform."""
    UNAUTHORIZED = "unauthorized"
    """The registry requires a credential, or another one."""
    NOT_FOUND = "not_found"
    """The registry has no such repository, tag or digest."""
    LOST_LAYER = "lost_layer"
    """The registry has the image, but not all of its layers."""
    CORRUPT = "corrupt"
    """The received data differs from the image's digest."""
    TLS = "tls"
    """The registry's certificate is not trusted, or it speaks plain HTTP."""
    THROTTLED = "throttled"
    """The registry reports too many requests."""
    TIMEOUT = "timeout"
    """The registry does not answer in time."""
    UNREACHABLE = "unreachable"
    """The registry cannot be reached."""
    STALLED = "stalled"
    """Nothing has arrived for the time that the deployment allows."""
    ENGINE_DOWN = "engine_down"
    """The engine does not answer, or stopped during the pull."""
    UNWANTED = "unwanted"
    """No start needs it any more."""
    OTHER = "other"


class PullFailed(ImageMissing):
    """The image could not be pulled."""

    code = "image_pull_failed"

    def __init__(self, detail: str = "", fault: PullFault = PullFault.OTHER) -> None:
        super().__init__(detail)
        self.fault = fault


class LoginFailed(EngineFailure):
    """A registry rejected a login, or did not answer."""

    code = "registry_login_failed"

    def __init__(self, detail: str = "", fault: PullFault = PullFault.OTHER) -> None:
        super().__init__(detail)
        self.fault = fault


_TELLING = [
    (PullFault.NO_SPACE, r"no space left on device|disk quota exceeded"),
    (PullFault.NO_PLATFORM, r"no matching manifest|image operating system .* cannot be used|the specified platform"),
    (PullFault.TLS, r"x509:|tls: |certificate|server gave HTTP response to HTTPS|not look like a TLS handshake"),
    (PullFault.THROTTLED, r"toomanyrequests|429 too many|rate limit"),
    (
        PullFault.UNAUTHORIZED,
        r"unauthorized|no basic auth credentials|authentication required|access denied|access to the resource is denied"
        r"|denied:|403 forbidden|incorrect username or password",
    ),
    (PullFault.LOST_LAYER, r"unknown blob|blob unknown|could not fetch content descriptor .* from remote: not found"),
    (
        PullFault.NOT_FOUND,
        r"manifest unknown|manifest for .* not found|name unknown|repository name not known|: not found|no such image",
    ),
    (PullFault.CORRUPT, r"verification failed|digest did not match|failed size validation|invalid checksum"),
    (PullFault.TIMEOUT, r"timeout|timed out|deadline exceeded|request canceled"),
    (
        PullFault.UNREACHABLE,
        r"connection refused|connection reset|no such host|no route to host|network is unreachable|dial tcp"
        r"|proxyconnect|\bEOF\b|server misbehaving|\b50[0234]\b|bad gateway|service unavailable",
    ),
]
"""In this order: the first pattern found in the message wins."""
_TELLING_RE = [(fault, re.compile(pattern, re.IGNORECASE)) for fault, pattern in _TELLING]


MAX_WORDS = 4000
"""A registry chooses its messages, and a pattern applied to a MiB of text takes minutes."""


def fault_of(words: str) -> PullFault:
    """The kind of failure by the first ``MAX_WORDS`` characters of the engine's message."""
    words = words[:MAX_WORDS]
    return next((fault for fault, pattern in _TELLING_RE if pattern.search(words)), PullFault.OTHER)


def pull_failed(
    reference: Reference, words: str, fault: PullFault | None = None, login: RegistryLogin | None = None
) -> PullFailed:
    """The error for the engine's message, without ``login``, with a remedy if one is known."""
    fault = fault or fault_of(words)
    advice = _advice(fault, reference, login)
    message = _shown(words, login)
    return PullFailed(f"Image {reference.text} cannot be pulled: {message}.{' ' * bool(advice)}{advice}", fault)


def login_failed(registry: str, words: str, login: RegistryLogin, fault: PullFault | None = None) -> LoginFailed:
    """The error for the engine's message about a login, without the login."""
    return LoginFailed(f"{registry}: {_shown(words, login)}.", fault or fault_of(words))


def _shown(words: str, login: RegistryLogin | None) -> str:
    return _without_secrets(login.scrub(words.strip()) if login else words.strip())[:500].rstrip(".")


def _without_secrets(words: str) -> str:
    """Without query strings, which stores use for signatures, and without user info in URLs."""
    return re.sub(r"(https?://)(?:[^/@\s\"]+@)?([^\s\"?]+)(?:\?[^\s\"]*)?", r"\1\2", words)


def _advice(fault: PullFault, reference: Reference, login: RegistryLogin | None) -> str:
    registry = "Docker Hub" if reference.registry == DEFAULT_REGISTRY else reference.registry
    if fault == PullFault.UNAUTHORIZED and login is not None:
        return (
            f"The registry refused the credential {login.credential}. Replace it, or give its account permission"
            f" to pull {reference.repository}."
        )
    return _ADVICE.get(fault, "").format(registry=registry, host=reference.registry)


_ADVICE = {
    PullFault.NO_SPACE: "The engine's disk is full: docker system df shows what uses it, docker image prune removes"
    " unused images. The pool retries by itself.",
    PullFault.NO_PLATFORM: "Push a build for this machine's platform too, or use another image.",
    PullFault.UNAUTHORIZED: "No registry credential is stored for {host}. Store one (Settings, Registries), or"
    " correct the image's name.",
    PullFault.NOT_FOUND: "Push it to {registry}, or correct the workload's image.",
    PullFault.LOST_LAYER: "Push the image again: {registry} has lost a part of it.",
    PullFault.CORRUPT: "Push the image again, and check the network between this machine and {registry}.",
    PullFault.TLS: "Put the certificate of its authority into /etc/docker/certs.d/{host}/ca.crt on this machine;"
    " list a registry without TLS in insecure-registries of /etc/docker/daemon.json.",
    PullFault.THROTTLED: "{registry} limits requests, usually less for authenticated ones. The pool retries by itself.",
    PullFault.TIMEOUT: "Check whether {registry} answers this machine. The pool retries by itself.",
    PullFault.UNREACHABLE: "Check whether this machine can reach {registry}. The pool retries by itself.",
    PullFault.STALLED: "Check the network between this machine and {registry}. The pool retries by itself.",
}
