"""What the deployment does when a machine joins: it checks the token, signs a certificate and hands over its keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings

from boilerhouse.core import audit, certificates, clock, context, encryption, node_identity, node_tokens
from boilerhouse.core.deployment import deployment_id
from boilerhouse.core.errors import Conflict, FieldError, Invalid
from boilerhouse.core.events import emit, recording
from boilerhouse.core.models import Node
from boilerhouse.core.querysets import SILENT_AFTER
from boilerhouse.core.states import NodeState

MAX_SKEW = timedelta(seconds=30)


class WrongDeployment(Conflict):
    """The machine's database belongs to another deployment than the one that it asked to join."""

    code = "wrong_deployment"


class OtherRelease(Conflict):
    """The machine has another release of Boilerhouse than the deployment."""

    code = "other_release"


class ClockSkew(Conflict):
    """The machine's clock differs from the deployment's."""

    code = "clock_skew"


class NodeIsAtWork(Conflict):
    """A node of this id is at work. Stop its processes before it joins again."""

    code = "node_is_at_work"


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine says about itself."""

    node_id: str
    name: str
    deployment_id: str
    """As its database says."""
    version: str
    time: datetime
    certificate_request: str


@dataclass(frozen=True, slots=True)
class Membership:
    """What a machine gets: with it, it is a node of the deployment, and knows all of its secrets."""

    deployment_id: str
    authority: str
    certificate: str
    secret_key: str
    key_pepper: str
    encryption_keys: tuple[str, ...]
    are_keys_given: bool
    """Whether the deployment's environment sets the encryption keys, so that rotations change only that."""


def join(token: str, machine: Machine) -> Membership:
    """The machine is a node of the deployment, and the token is used up.

    If this raises, nothing has changed, and the token can be used: BadNodeToken, NodeTokenEnded, OneMachineOnly,
    WrongDeployment, OtherRelease, ClockSkew, NodeIsAtWork, Invalid.
    """
    with context.acting(f"node {machine.node_id}"[:160], context.request_id()), recording():
        row = node_tokens.use(token, machine.node_id)
        node_tokens.check_database()
        _check(machine)
        signer = node_identity.authority()
        try:
            certificate = certificates.sign(signer, machine.certificate_request, machine.node_id)
        except certificates.BadRequest as error:
            raise Invalid(FieldError("/certificateRequest", str(error))) from error
        _register(machine, certificate)
        audit.record("node.join", machine.node_id, after={"name": machine.name, "tokenId": row.pk})
        emit("node.joined", node=machine.node_id, name=machine.name)
        return Membership(
            deployment_id(), signer.certificate, certificate, settings.SECRET_KEY, settings.BOILERHOUSE_KEY_PEPPER,
            encryption.in_force(), encryption.are_given(),
        )  # fmt: skip


def _check(machine: Machine) -> None:
    if machine.deployment_id != deployment_id():
        raise WrongDeployment(
            f"The machine's DATABASE_URL leads to deployment {machine.deployment_id}, but this is {deployment_id()}."
        )
    if machine.version != settings.VERSION:
        raise OtherRelease(f"The machine has release {machine.version}, the deployment {settings.VERSION}.")
    skew = abs(machine.time - clock.now())
    if skew > MAX_SKEW:
        raise ClockSkew(
            f"The machine's clock differs from the database's by {round(skew.total_seconds())} s. Set it"
            " (timedatectl set-ntp true), and join again."
        )


def _register(machine: Machine, certificate: str) -> None:
    """Its row, without a heartbeat: it gets containers once its worker runs."""
    node = Node.objects.select_for_update(no_key=True).filter(pk=machine.node_id).first()
    if node is not None and node.heartbeat_at > clock.now() - SILENT_AFTER:
        raise NodeIsAtWork
    values = {
        "name": machine.name[:64], "joined_at": clock.now(),
        "certificate_sha256": certificates.fingerprint(certificate),
        "certificate_expires_at": certificates.expires_at(certificate),
    }  # fmt: skip
    unheard = {"state": NodeState.SILENT, "heartbeat_at": clock.now() - 2 * SILENT_AFTER}
    Node.objects.update_or_create(pk=machine.node_id, defaults=values, create_defaults={**values, **unheard})
