"""The question of each action: what it will do if it is confirmed now.

How strongly an action asks depends on what it may destroy: one that can be repeated or undone does not ask, one that
others feel asks, and one that destroys state or configuration, or concerns many tenants at once, wants a word typed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.http import HttpRequest

from boilerhouse.attention.words import count
from boilerhouse.core import node_changes, users
from boilerhouse.core.errors import Conflict
from boilerhouse.core.models import ApiKey
from boilerhouse.dashboard import workload_versions
from boilerhouse.dashboard.questions import MANY, Question
from boilerhouse.dashboard.sections import workloads as workload_form
from boilerhouse.dashboard.templatetags.ui import duration_ms, short, size
from boilerhouse.notifications import targets as notifications
from pools import errors as pool_errors
from pools import registry_credentials
from pools.models import Container
from pools.services import find_pool, find_version, find_workload
from pools.states import ContainerState
from syncing import credentials
from syncing import services as syncing
from syncing.models import Backup
from syncing.services import find_spec
from tenants import errors
from tenants.models import Assignment
from tenants.states import AssignmentState

RETRIED = "If the save fails, the state stays on the node and the save is retried."
IDS = 200
"""The maximum number of objects in one bulk action."""


def _claim_of(tenant_id: str) -> Assignment:
    claim = Assignment.objects.live().select_related("container").filter(tenant_id=tenant_id).first()
    if claim is None:
        raise errors.NothingHeld
    return claim


def _release_question(claim: Assignment) -> Question:
    """Of a tenant that uses a container, by what its pool saves."""
    specs = [spec.pk for spec in syncing.specs_to_save(claim.pool_id, None)]
    where = f" from {short(str(claim.container_ref))}" if claim.container_ref else ""
    measured = claim.container.disk_bytes if claim.container else None
    amount = f" ({size(measured)} when last measured)" if measured is not None else ""
    effect = f"{claim.tenant_id} is disconnected{where} now. The container is stopped"
    if specs:
        text = f"{effect}, its state{amount} is saved by {', '.join(specs)}, and it is removed. {RETRIED}"
        return Question(f"Release {claim.tenant_id}?", text, "Save and release", "release")
    text = (
        f"{effect} and removed. Nothing is saved: no sync spec of {claim.pool_id} saves on release. Its"
        f" state{amount} is lost."
    )
    return Question(
        f"Release {claim.tenant_id} without a save?", text, "Release and lose state", "lose", claim.tenant_id
    )


def release_tenant(_request: HttpRequest, tenant_id: str) -> Question:
    claim = _claim_of(tenant_id)
    match claim.state:
        case AssignmentState.PENDING:
            text = "The container is removed because it may hold the tenant's data. The saved state is not changed."
            return Question(f"Cancel the claim of {tenant_id}?", text, "Cancel claim", "cancel")
        case AssignmentState.ASSIGNED:
            return _release_question(claim)
        case AssignmentState.RELEASING:
            text = "It is already being released. You can follow the release."
            return Question(f"Release {tenant_id}?", text, "Follow release", "join")
        case _:
            text = f"Its last save failed: {claim.outcome_detail} {claim.whereabouts} The save is tried again now."
            return Question(f"Save {tenant_id} again?", text, "Retry save", "retry")


def discard_tenant(_request: HttpRequest, tenant_id: str) -> Question:
    _claim_of(tenant_id)
    text = "Changes since the last complete save are discarded. They can be recovered on the node for a limited time."
    return Question(f"Discard the unsaved state of {tenant_id}?", text, "Discard state", "discard", tenant_id)


def erase_tenant(_request: HttpRequest, tenant_id: str) -> Question:
    amount = syncing.known_bytes(tenant_id)
    effect = f"All saved state of {tenant_id}{f', {size(amount)},' if amount else ''} is deleted"
    text = f"{effect} at the sinks, including backups. It cannot be recovered. Activity and Changes keep a record."
    return Question(f"Erase the state of {tenant_id}?", text, "Erase state", "erase", tenant_id)


def forget_tenant(_request: HttpRequest, tenant_id: str) -> Question:
    text = (
        "The saved state is not where it should be. If it may still exist, repair the sink instead: otherwise the next"
        " claim starts empty and overwrites it."
    )
    return Question(f"Forget the missing state of {tenant_id}?", text, "Forget state", "forget", tenant_id)


def put_back_backup(_request: HttpRequest, tenant_id: str, backup_id: UUID) -> Question:
    backup = Backup.objects.filter(pk=backup_id, tenant_id=tenant_id).first()
    if backup is None:
        raise errors.BackupNotFound
    what = f"{count(backup.files, 'file')}, {size(backup.bytes)}, of {backup.created_at:%Y-%m-%d %H:%M:%S} UTC"
    text = (
        f"{what} replace those of {backup.container_path} at the sink, which are kept as a new backup. {tenant_id}"
        " cannot claim until the restore has ended."
    )
    return Question(f"Restore this backup of {tenant_id}?", text, "Restore backup", "restore")


def remove_container(_request: HttpRequest, container_id: UUID) -> Question:
    container = Container.objects.filter(pk=container_id).first()
    if container is None:
        raise pool_errors.ContainerNotFound(f"There is no container {container_id}; it may have been removed.")
    claim = Assignment.objects.live().select_related("container").filter(container_ref=container_id).first()
    if claim is not None and claim.state == AssignmentState.ASSIGNED:
        return _release_question(claim)
    if claim is not None:
        return release_tenant(_request, claim.tenant_id)
    text = f"No tenant is using it. {container.pool_id} starts a replacement if it needs one."
    return Question(f"Remove {short(str(container_id))}?", text, "Remove container", "remove")


def drain_pool(_request: HttpRequest, pool_id: str) -> Question:
    status = find_pool(pool_id).status()
    warm = status.idle + status.starting
    refused = f", including {status.waiting} waiting" if status.waiting else ""
    removed = f"{count(warm, 'idle or starting container')} {'is' if warm == 1 else 'are'} removed." if warm else ""
    if status.claimed:
        remainder = f"{count(status.claimed, 'tenant')} stay{'s' if status.claimed == 1 else ''} until release."
    else:
        remainder = "No tenant is using this pool."
    text = " ".join(filter(None, (f"New claims are refused{refused}.", removed, remainder)))
    return Question(f"Drain {pool_id}?", text, "Drain pool", "drain")


def delete_pool(_request: HttpRequest, pool_id: str) -> Question:
    pool = find_pool(pool_id)
    status, specs = pool.status(), syncing.specs_to_save(pool_id, None)
    tenants = status.claimed + pool.release_failed
    if not tenants:
        first = "No tenant is using it."
    elif specs:
        first = f"{count(tenants, 'tenant')} {'is' if tenants == 1 else 'are'} saved and released first."
    else:
        states = "its state is" if tenants == 1 else "their state is"
        released = f"{count(tenants, 'tenant')} {'is' if tenants == 1 else 'are'} released first"
        first = f"{released} without a save: {states} lost."
    text = f"{first} Then its containers, its sync specs and the pool are deleted. Saved state stays in the sinks."
    return Question(f"Delete {pool_id}?", text, "Delete pool", "delete", pool_id)


def delete_spec(_request: HttpRequest, spec_id: str) -> Question:
    spec = find_spec(spec_id)
    tenants = Assignment.objects.live().filter(pool_id=spec.pool_id).count()
    using = (
        f"{count(tenants, 'tenant')} of {spec.pool_id} {'is' if tenants == 1 else 'are'}"
        if tenants
        else "Future tenants are"
    )
    text = f"{using} no longer saved there. Saved state stays in the sink."
    return Question(f"Delete {spec_id}?", text, "Delete sync spec", "delete", spec_id)


def trigger_spec(_request: HttpRequest, spec_id: str) -> Question:
    spec = find_spec(spec_id)
    tenants = Assignment.objects.filter(pool_id=spec.pool_id, state=AssignmentState.ASSIGNED).count()
    if not tenants:
        raise Conflict("No tenant is assigned a container of this pool. There is nothing to save.")
    text = f"The state of {count(tenants, 'tenant')} of {spec.pool_id} is saved. Tenants keep working."
    return Question(f"Save {count(tenants, 'tenant')} now?", text, f"Save {count(tenants, 'tenant')}", "save")


def delete_workload(_request: HttpRequest, workload_id: str) -> Question:
    versions = find_workload(workload_id).versions.count()
    text = f"The workload and its {count(versions, 'version')} are deleted. A workload that a pool uses is not deleted."
    return Question(f"Delete {workload_id}?", text, "Delete workload", "delete", workload_id)


def refresh_workload(_request: HttpRequest, workload_id: str) -> Question:
    pools = find_workload(workload_id).pools.count()
    text = (
        f"The registry is asked which image the tag points to. A new image is tested in one container of each of"
        f" {count(pools, 'pool')} first, then idle containers are replaced. Tenants keep their containers until"
        " release."
    )
    return Question(f"Refresh the image of {workload_id}?", text, "Refresh image", "refresh")


def roll_back_workload(_request: HttpRequest, workload_id: str, number: int) -> Question:
    workload = find_workload(workload_id)
    old, latest = find_version(workload, number), workload.latest
    if old.pk == latest.pk:
        raise pool_errors.SameVersion(f"Version {number} is the newest version.")
    changed = [one.label for one in workload_versions.changes(latest, old, workload_form.sections_of(is_new=False))]
    what = f" It changes {', '.join(changed[:10])}{', …' if len(changed) > 10 else ''}." if changed else ""
    pools = list(workload.pools.order_by("pk").values_list("pk", flat=True))
    claimed = Container.objects.filter(pool_id__in=pools, state=ContainerState.CLAIMED).count()
    roll = "No pool uses this workload."
    if pools:
        verb = "rolls" if len(pools) == 1 else "roll"
        roll = f"{', '.join(pools)} {verb} to it: one container is tested first, then idle containers are replaced."
    if claimed:
        keep = "keeps its" if claimed == 1 else "keep their"
        roll += f" {count(claimed, 'claimed container')} {keep} version until release."
    if latest.spec.rolls_to_new_images or old.spec.rolls_to_new_images:
        roll += " This workload rolls by itself when its tag names another image."
    text = f"Creates version {latest.number + 1} with the content of version {number}.{what} {roll}"
    kind = f"roll-back-{latest.number}"
    return Question(f"Roll {workload_id} back to version {number}?", text, f"Roll back to version {number}", kind)


def revoke_key(_request: HttpRequest, key_id: str) -> Question:
    key = ApiKey.objects.filter(pk=key_id).first()
    name = key.name if key else key_id
    used = f" It was last used at {key.last_used_at:%Y-%m-%d %H:%M:%S} UTC." if key and key.last_used_at else ""
    text = f"It stops working now, and its open connections are closed. This cannot be undone.{used}"
    return Question(f"Revoke the key {name}?", text, "Revoke key", "revoke")


def disable_user(_request: HttpRequest, user_id: int) -> Question:
    user = users.find(user_id)
    text = f"{user} can no longer sign in. {_sessions_end(user)} You can enable the user again."
    return Question(f"Disable {user}?", text, "Disable user", "disable")


def end_user_sessions(_request: HttpRequest, user_id: int) -> Question:
    user = users.find(user_id)
    return Question(
        f"Sign {user} out everywhere?", f"{_sessions_end(user)} The password does not change.", "End sessions"
    )


def require_new_password(_request: HttpRequest, user_id: int) -> Question:
    user = users.find(user_id)
    has_one = "The old password stops working now. " if user.has_usable_password() else ""
    text = f"{has_one}{_sessions_end(user)} You get a link, shown once, with which {user} sets a new password."
    return Question(f"Make a new link for {user}?", text, "Make link")


def _sessions_end(user: Any) -> str:
    if not user.living:
        return "There is no open session."
    return f"{count(user.living, 'session')} end{'s' if user.living == 1 else ''} now, open shells included."


def delete_credential(_request: HttpRequest, credential_id: str) -> Question:
    credentials.find(credential_id)
    text = "The stored secret is deleted and cannot be read back. A credential that a sync spec uses is not deleted."
    return Question(f"Delete {credential_id}?", text, "Delete credential", "delete", credential_id)


def delete_registry_credential(_request: HttpRequest, registry_credential_id: str) -> Question:
    credential = registry_credentials.find(registry_credential_id)
    text = (
        f"The stored secret is deleted and cannot be read back. Later pulls from {credential.registry} do not use it."
    )
    return Question(f"Delete {registry_credential_id}?", text, "Delete credential", "delete", registry_credential_id)


def drain_node(_request: HttpRequest, node_id: str) -> Question:
    """Says how many tenants lose their containers."""
    node = node_changes.find(node_id)
    live = Assignment.objects.filter(container__node=node, state=AssignmentState.ASSIGNED).count()
    text = (
        f"{count(live, 'tenant')} there {'is' if live == 1 else 'are'} released, with a save. The node gets no new"
        " containers, and its idle ones are replaced on other nodes. Uncordon ends it."
    )
    return Question(f"Drain {node_id}?", text, "Drain", "drain", node_id)


def declare_node_lost(_request: HttpRequest, node_id: str) -> Question:
    """Says how many tenants lose what they have not saved."""
    node = node_changes.find(node_id)
    live = Assignment.objects.live().filter(container__node=node, was_assigned=True).count()
    holders = (
        f"{count(live, 'tenant')} {'has' if live == 1 else 'have'} containers there"
        if live
        else "No tenant has a container there"
    )
    text = (
        f"Confirm only if the machine is off: a container that still runs would make two for one tenant. {holders}."
        " Tenants can claim elsewhere at once and get what they last saved. What they have not saved stays on the node."
    )
    return Question(f"Declare {node_id} lost?", text, "Declare lost", "lost", node_id)


def delete_notification(_request: HttpRequest, notification_id: str) -> Question:
    notifications.find(notification_id)
    text = "The target gets no more messages, its log is deleted, and its secrets cannot be read back."
    return Question(f"Delete {notification_id}?", text, "Delete notification", "delete", notification_id)


def shorter_inactivity(pool_id: str, timeout_ms: int, inactive: int, fields: Sequence[tuple[str, str]]) -> Question:
    """Before a pool's configuration releases tenants that use it now."""
    text = (
        f"{count(inactive, 'tenant')} of {pool_id} {'has' if inactive == 1 else 'have'} been inactive for longer than"
        f" {duration_ms(timeout_ms)} and would be released now, unless their files have changed since."
    )
    return Question(
        f"Release {count(inactive, 'tenant')}?", text, "Save and release", "idle",
        str(inactive) if inactive > MANY else "", fields,
    )  # fmt: skip


KEPT_THINGS = {
    "events": "event", "runs": "sync run", "probes": "sink check", "backups": "backup of tenants' state",
    "audit": "entry of Changes",
}  # fmt: skip


def shorter_retention(counts: Mapping[str, int], fields: Sequence[tuple[str, str]]) -> Question:
    """Before a shorter retention deletes what is kept now."""
    things = [_amount(number, KEPT_THINGS[kind]) for kind, number in counts.items()]
    listed = " and ".join(filter(None, (", ".join(things[:-1]), things[-1])))
    verb = "is" if sum(counts.values()) == 1 else "are"
    text = f"Up to {listed} {verb} older and would be deleted within minutes. This cannot be undone."
    kind = f"retention {' '.join(counts)}"
    typed = "delete" if "backups" in counts else ""
    return Question("Delete older history?", text, "Save and delete", kind, typed, fields)


def _amount(number: int, thing: str) -> str:
    """``1 entry of Changes``, ``3 backups of tenants' state``."""
    noun, of, rest = thing.partition(" of ")
    many = noun.removesuffix("y") + "ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else many}{of}{rest}"
