"""Creates the objects of the example workload: as the demo does it, and the first steps of an empty deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from boilerhouse.core.errors import FieldError, Invalid, NotFound
from boilerhouse.operations import embedded_s3, resources
from boilerhouse.operations.resources import ApplyResult, Resource
from boilerhouse.operations.supervisor import EmbeddedS3
from pools import images
from pools.models import Pool

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "notes.yaml"


class NoEmbeddedS3(NotFound):
    """No embedded S3 server runs here. Start with manage.py up --s3, or save to a sink of your own."""

    code = "no_embedded_s3"


def load() -> list[ApplyResult]:
    """Create the workload, the pool and, where the embedded S3 runs, the sync spec of the example, all or none.

    What exists already and is the same stays as it is, so it can be repeated. The image is built if it is missing.
    Raises EngineFailure, EngineUnavailable, and Invalid if an object of the same name differs.
    """
    images.ensure_example()
    s3 = embedded_s3.running()
    documents = [entry for entry in resources.read([EXAMPLE]) if isinstance(entry, Resource)]
    chosen = [_with_sink(entry, s3) for entry in documents if entry.kind != "SyncSpec" or s3 is not None]
    return _apply(chosen)


def _with_sink(document: Resource, s3: EmbeddedS3 | None) -> Resource:
    if document.kind == "SyncSpec" and s3 is not None:
        document.body["sink"] = s3.sink(document.body["sink"]["prefix"])
    return document


def save_to_embedded_s3(pool: Pool) -> str:
    """Create a sync spec of the pool at the embedded S3, for the first volume that it can save. Returns its id.

    Raises NoEmbeddedS3, and Invalid if the workload has no such volume or the spec exists and differs.
    """
    s3 = embedded_s3.running()
    if s3 is None:
        raise NoEmbeddedS3
    volumes = [v for v in pool.serving_version.spec.volumes if v.mode == "rw" and v.name != "secrets"]
    if not volumes:
        raise Invalid(
            FieldError("/mappings", f"The workload of {pool.pk} has no volume that can be saved.", "no_volume")
        )
    volume = min(volumes, key=lambda one: one.name != "state")
    body: dict[str, Any] = {
        "id": f"{pool.pk}-state"[:63], "poolId": pool.pk, "policy": {"onClaim": True, "onRelease": True},
        "mappings": [{
            "containerPath": volume.container_path, "sinkPath": f"{volume.name}/", "direction": "bidirectional",
            "mode": "sync",
        }],
        "sink": s3.sink(f"{pool.pk}/${{tenantId}}/"),
    }  # fmt: skip
    _apply([Resource(pool.pk, "SyncSpec", body)])
    return str(body["id"])


def _apply(documents: list[Resource]) -> list[ApplyResult]:
    results = resources.apply(documents, dry_run=False)
    wrong = [FieldError(error.pointer, f"{result.kind} {result.id}: {error.detail}", error.code)
             for result in results for error in result.errors]  # fmt: skip
    if wrong:
        raise Invalid(*wrong)
    return results
