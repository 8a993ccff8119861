"""Applies documents of workloads, pools, sync specs and the like: changes what differs, deletes nothing.

All documents are one transaction (ADR 67). Each is planned first: what asks a sink is done then, without a lock.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from boilerhouse.api.parsers import check_value
from boilerhouse.api.serializers import ApiSerializer, camel
from boilerhouse.core.all_or_nothing import all_or_nothing
from boilerhouse.core.errors import BoilerhouseError, FieldError, Invalid
from boilerhouse.core.text import lines
from boilerhouse.notifications import targets
from boilerhouse.notifications.api.serializers import NotificationInput, render_target
from boilerhouse.notifications.models import Target
from boilerhouse.notifications.states import TargetKind
from boilerhouse.web.problems import field_errors
from pools import mounts, registry_credentials
from pools import services as pool_services
from pools.api.registry_credentials import (
    RegistryCredentialInput,
    render_registry_credential,
    same_registry,
    secret_of,
)
from pools.api.serializers import PoolInput, WorkloadInput, render_pool, render_workload
from pools.api.serializers import render_spec as render_workload_spec
from pools.feasibility import check_feasible
from pools.models import Pool, RegistryCredential, Workload
from syncing import credentials, places
from syncing import services as sync_services
from syncing.api.credentials import CredentialInput, render_credential
from syncing.api.serializers import SyncSpecInput, render_spec
from syncing.models import Credential, SyncSpec

ORDER = ("RegistryCredential", "Workload", "Pool", "Credential", "SyncSpec", "Notification")
"""The order of kinds, so that an object is created before others refer to it."""
SERIALIZERS: dict[str, type[ApiSerializer]] = {
    "Workload": WorkloadInput, "Pool": PoolInput, "Credential": CredentialInput, "SyncSpec": SyncSpecInput,
    "RegistryCredential": RegistryCredentialInput, "Notification": NotificationInput,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Resource:
    """A document and its position in the file."""

    place: str
    kind: str
    body: dict[str, Any]


@dataclass(slots=True)
class ApplyResult:
    """The result of a document: ``created``, ``changed``, ``unchanged`` or ``failed``."""

    place: str
    kind: str
    id: str
    outcome: str
    errors: list[FieldError] = field(default_factory=list)
    difference: list[str] = field(default_factory=list)
    warnings: list[FieldError] = field(default_factory=list)


def read(paths: Sequence[Path]) -> Iterator[Resource | ApplyResult]:
    """The documents in files, and in ``*.yaml`` of directories. One that cannot be read becomes a failed document."""
    for path in paths:
        for file in sorted(path.glob("*.y*ml")) if path.is_dir() else [path]:
            try:
                parts = list(yaml.safe_load_all(file.read_text()))
            except (OSError, ValueError, yaml.YAMLError) as error:
                yield _failed(str(file), "", "", [FieldError("", f"Cannot be read: {str(error)[:300]}", "malformed")])
                continue
            for number, body in enumerate(parts, 1):
                place = f"{file}#{number}"
                if body is None:
                    continue
                kind = body.pop("kind", None) if isinstance(body, dict) else None
                if kind not in ORDER:
                    detail = f"kind must be one of {', '.join(ORDER)}"
                    yield _failed(place, str(kind or ""), "", [FieldError("/kind", detail, "invalid_choice")])
                    continue
                yield Resource(place, kind, body)


@dataclass(slots=True)
class _Plan:
    """What earlier documents are about to create or change."""

    is_to_apply: bool
    """Whether sinks are asked, which writes the object that identifies a place."""
    created: set[tuple[str, str]] = field(default_factory=set)
    credentials: dict[str, Credential] = field(default_factory=dict)
    """With their new secrets; not stored yet."""
    place_checks: dict[str, places.PlaceCheck] = field(default_factory=dict)
    """By the document's place: the answer of the sink of a sync spec."""


class _IsFailed(Exception):
    """Rolls back what the documents before this one have changed."""


def apply(documents: Sequence[Resource | ApplyResult], *, dry_run: bool) -> list[ApplyResult]:
    """Apply all documents, referenced objects first; if one fails, none. The results say what each is or would be."""
    unreadable = [entry for entry in documents if isinstance(entry, ApplyResult)]
    resources = [entry for entry in documents if isinstance(entry, Resource)]
    resources.sort(key=lambda entry: ORDER.index(entry.kind))
    plan = _Plan(is_to_apply=not dry_run)
    results = unreadable + [_attempt(document, plan, dry_run=True) for document in resources]
    if dry_run or any(result.outcome == "failed" for result in results):
        return results
    try:
        with all_or_nothing():
            for number, document in enumerate(resources):
                results[number] = _attempt(document, plan, dry_run=False)
                if results[number].outcome == "failed":
                    raise _IsFailed
    except _IsFailed:
        pass
    return results


def _attempt(document: Resource, plan: _Plan, *, dry_run: bool) -> ApplyResult:
    known_id = str(document.body.get("id", ""))
    try:
        check_value(document.body)
        result = _KINDS[document.kind](document, dry_run, plan)
    except BoilerhouseError as error:
        wrong = (
            error.errors if isinstance(error, Invalid) and error.errors else [FieldError("", error.detail, error.code)]
        )
        result = _failed(document.place, document.kind, known_id, wrong)
    except ValueError as error:
        result = _failed(document.place, document.kind, known_id, [FieldError("", str(error), "malformed")])
    if result.outcome == "created":
        plan.created.add((document.kind, result.id))
    return result


def _failed(place: str, kind: str, id: str, errors: list[FieldError]) -> ApplyResult:
    return ApplyResult(place, kind, id, "failed", errors)


def _valid(document: Resource, **more: Any) -> Any:
    if not document.body.get("id"):
        raise Invalid(FieldError("/id", "A document needs an id, which names the object to change.", "required"))
    body = SERIALIZERS[document.kind](data=document.body, **more)
    if not body.is_valid():
        raise Invalid(*field_errors(body.errors))
    return body


def _difference(kind: str, before: dict[str, Any] | None, after: dict[str, Any]) -> list[str]:
    hidden = SERIALIZERS[kind].read_only_ignored
    old = _lines({k: v for k, v in before.items() if k not in hidden}) if before else []
    new = _lines({k: v for k, v in after.items() if k not in hidden})
    return list(difflib.unified_diff(old, new, lineterm="", n=1))[2:]


def _lines(value: dict[str, Any]) -> list[str]:
    """Sorted, because PostgreSQL does not keep the order of names."""
    return lines(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True, default=str))


def _result(document: Resource, before: dict[str, Any] | None, after: dict[str, Any]) -> ApplyResult:
    difference = _difference(document.kind, before, after)
    outcome = "created" if before is None else "changed" if difference else "unchanged"
    return ApplyResult(document.place, document.kind, str(after["id"]), outcome, difference=difference)


def _workload(document: Resource, dry_run: bool, plan: _Plan) -> ApplyResult:
    body = _valid(document)
    data, spec = body.validated_data, body.to_spec()
    image = check_feasible(spec)
    row = Workload.objects.with_latest().filter(pk=data["id"]).first()
    before = render_workload(row) if row else None
    after = {**(before or {}), "id": data["id"], "name": data["name"], **render_workload_spec(spec)}
    result = _result(document, before, after)
    result.warnings = mounts.warnings(mounts.declared(spec, image.volumes).bare) if image else []
    if not dry_run and result.outcome != "unchanged":
        if row is None:
            pool_services.create_workload(id=data["id"], name=data["name"], spec=spec)
        else:
            pool_services.update_workload(row, name=data["name"], spec=spec)
    return result


def _pool(document: Resource, dry_run: bool, plan: _Plan) -> ApplyResult:
    body = _valid(document)
    data = dict(body.validated_data)
    row = Pool.objects.with_counts().filter(pk=data["id"]).first()
    before = render_pool(row) if row else None
    workload_id = data.pop("workload_id")
    workload = Workload.objects.filter(pk=workload_id).first()
    if workload is None and ("Workload", workload_id) not in plan.created:
        raise Invalid(FieldError("/workloadId", "No such workload.", "not_found"))
    if row is not None and row.workload_id != workload_id:
        raise Invalid(
            FieldError("/workloadId", f"The workload of a pool cannot change (it is {row.workload_id}).", "fixed")
        )
    id, name = data.pop("id"), data.pop("name", None)
    settings = {camel(key): value for key, value in data.items()}
    after = {
        **(before or {}),
        "id": id,
        "name": name or (before or {}).get("name", id),
        "workloadId": workload_id,
        **settings,
    }
    result = _result(document, before, after)
    if not dry_run and result.outcome != "unchanged":
        if row is None:
            assert workload is not None
            pool_services.create_pool(id=id, name=name, workload=workload, **data)
        else:
            pool_services.update_pool(id, name=name, **data)
    return result


def _credential(document: Resource, dry_run: bool, plan: _Plan) -> ApplyResult:
    data = _valid(document).validated_data
    row = Credential.objects.prefetch_related("syncspec_set").filter(pk=data["id"]).first()
    secret = data["secret_access_key"]
    is_rotated = row is not None and row.secret["secretAccessKey"] != secret
    before = {**render_credential(row), "secretAccessKey": "as stored"} if row else None
    after = {**(before or {}), "id": data["id"], "name": data["name"], "accessKeyId": data["access_key_id"],
             "secretAccessKey": "another" if is_rotated or row is None else "as stored"}  # fmt: skip
    fields = {"name": data["name"], "access_key_id": data["access_key_id"], "secret_access_key": secret}
    result = _result(document, before, after)
    stored = {"accessKeyId": data["access_key_id"], "secretAccessKey": secret}
    plan.credentials[data["id"]] = Credential(id=data["id"], name=data["name"], secret=stored)
    if not dry_run and result.outcome != "unchanged":
        if row is None:
            credentials.create(id=data["id"], **fields)
        else:
            credentials.replace(row, **fields)
    return result


def _registry_credential(document: Resource, dry_run: bool, plan: _Plan) -> ApplyResult:
    data = _valid(document).validated_data
    row = RegistryCredential.objects.filter(pk=data["id"]).first()
    if row is not None:
        same_registry(data, row)
    secret, name = secret_of(data), data.get("name") or (row.name if row else data["registry"])
    is_same = row is not None and row.secret == secret
    before = {**render_registry_credential(row, ()), "secret": "as stored"} if row else None
    after = {**(before or {}), "id": data["id"], "name": name, "registry": data["registry"],
             "username": secret.get("username"), "secret": "as stored" if is_same else "another"}  # fmt: skip
    result = _result(document, before, after)
    if not dry_run and result.outcome != "unchanged":
        if row is None:
            registry_credentials.create(id=data["id"], name=name, registry=data["registry"], secret=secret)
        else:
            registry_credentials.replace(row, name=name, secret=secret)
    return result


def _sync_spec(document: Resource, dry_run: bool, plan: _Plan) -> ApplyResult:
    row = SyncSpec.objects.filter(pk=str(document.body.get("id", ""))).first()
    body = _valid(document, context={"stored": row} if row else {})
    data, parts = body.validated_data, body.parts()
    before = render_spec(row) if row else None
    pool = Pool.objects.select_related("workload").filter(pk=data["pool_id"]).first()
    if pool is None and ("Pool", data["pool_id"]) not in plan.created:
        raise Invalid(FieldError("/poolId", "No such pool.", "not_found"))
    if row is not None and row.pool_id != data["pool_id"]:
        raise Invalid(FieldError("/poolId", f"The pool of a sync spec cannot change (it is {row.pool_id}).", "fixed"))
    mappings = [
        {"containerPath": mapping["container_path"], **({"pattern": mapping["pattern"]} if mapping["pattern"] else {}),
         "sinkPath": mapping["sink_path"], "direction": mapping["direction"], "mode": mapping["mode"]}
        for mapping in parts["mappings"]
    ]  # fmt: skip
    policy = {"onClaim": parts["on_claim"], "onRelease": parts["on_release"], "intervalMs": parts["interval_ms"],
              "allowManualTrigger": parts["allow_manual_trigger"], "quiesce": parts["quiesce"]}  # fmt: skip
    name = data.get("name") or (before or {}).get("name") or data["id"]
    after = {**(before or {}), "id": data["id"], "name": name, "poolId": data["pool_id"], "mappings": mappings,
             "sink": parts["sink"], "policy": policy}  # fmt: skip
    has_other_secret = row is not None and parts["sink_secrets"] != row.sink_secrets
    result = _result(document, before, after)
    if has_other_secret and result.outcome == "unchanged":
        result.outcome, result.difference = "changed", ["+ a different secret"]
    if result.outcome == "unchanged":
        return result
    if dry_run and not plan.is_to_apply:
        return result
    if dry_run:
        credential = plan.credentials.get(parts["credential_id"])
        plan.place_checks[document.place] = sync_services.check_place(row, credential, parts)
        return result
    place_check = plan.place_checks.get(document.place)
    if row is None:
        assert pool is not None
        sync_services.create_spec(id=data["id"], name=data.get("name"), pool=pool, place_check=place_check, **parts)
    else:
        sync_services.update_spec(row, name=data.get("name"), force=False, place_check=place_check, **parts)
    return result


def _notification(document: Resource, dry_run: bool, plan: _Plan) -> ApplyResult:
    """A webhook needs its ``secret`` in the document, because nobody would see one that is made here."""
    row = Target.objects.filter(pk=str(document.body.get("id", ""))).first()
    created = {name for kind, name in plan.created if kind == "Pool"}
    body = _valid(document, context={"stored": row, "new_pools": created})
    settings = body.settings()
    if row is None and settings.kind == TargetKind.WEBHOOK and settings.secret is None:
        raise Invalid(
            FieldError("/secret", "Give the signing secret: whsec_ and 24 to 64 bytes in base64.", "required")
        )
    before = render_target(row) if row else None
    after = {**(before or {}), "id": body.validated_data["id"], "type": settings.kind, **targets.plain(settings)}
    result = _result(document, before, after)
    if row is not None and result.outcome == "unchanged" and targets.has_other_secret(row, settings):
        result.outcome, result.difference = "changed", ["+ a different secret"]
    if not dry_run and result.outcome != "unchanged":
        if row is None:
            targets.create(id=body.validated_data["id"], settings=settings)
        else:
            targets.replace(row, settings)
    return result


_KINDS: dict[str, Callable[[Resource, bool, _Plan], ApplyResult]] = {
    "Workload": _workload, "Pool": _pool, "Credential": _credential, "SyncSpec": _sync_spec,
    "RegistryCredential": _registry_credential, "Notification": _notification,
}  # fmt: skip
