"""Translates exceptions of docker and requests into our errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import docker.errors
import requests
import urllib3

from pools import errors

_NO_GPUS = (
    "This node's engine has no GPUs. Install the vendor's container toolkit (NVIDIA Container Toolkit) on the"
    " node, or remove resources.gpus from the workload."
)
CANNOT_GIVE = {
    "could not select device driver": _NO_GPUS,
    "failed to discover GPU vendor": _NO_GPUS,
    "unresolvable CDI devices": _NO_GPUS,
    "error gathering device information": "The node lacks a device that the workload names. Load its driver, or"
    " remove it from devices.",
    "setting rlimit": "The node's kernel refuses a limit in the workload's ulimits. Lower it.",
}
"""The engine's message about a failed start → the remedy."""


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Translate exceptions of docker and requests into our errors; most specific first."""
    try:
        yield
    except docker.errors.ImageNotFound as error:
        raise errors.ImageMissing(words_of(error)) from error
    except docker.errors.NotFound as error:
        raise errors.ContainerMissing(words_of(error)) from error
    except docker.errors.APIError as error:
        words = words_of(error)
        if error.status_code == 409 and "is already in use" in words:
            raise errors.NameTaken(words) from error
        if error.status_code == 409 and "not running" in words:
            raise errors.NotRunning(words) from error
        for sign, message in CANNOT_GIVE.items():
            if sign in words:
                raise errors.CannotGive(f"{message} The engine reports: {words}") from error
        if "exec:" in words or "executable file not found" in words or "OCI runtime create failed" in words:
            raise errors.BadCommand(words) from error
        if error.status_code == 403 and "active endpoints" not in words:
            raise errors.EngineFailure("The Docker socket proxy denied this call.") from error
        raise errors.EngineFailure(words) from error
    except (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError) as error:
        raise errors.EngineTimeout("The container engine did not answer in time.") from error
    except (docker.errors.DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise errors.EngineUnavailable(f"The container engine does not answer ({type(error).__name__}).") from error


def words_of(error: docker.errors.APIError) -> str:
    return all_words(error)[:500]


def all_words(error: docker.errors.APIError) -> str:
    return str(error.explanation or error)
