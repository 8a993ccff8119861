"""The identity of the deployment: a random id, stored in the data directory and in the database."""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Callable
from functools import cache
from pathlib import Path

from django.conf import settings
from django.db import IntegrityError, transaction

from boilerhouse.core import keys
from boilerhouse.core.errors import Conflict, Failed
from boilerhouse.core.models import Deployment, Node


class WrongNode(Failed):
    """The containers in the database belong to another node, and none to this one."""

    code = "wrong_node"


class KeysElsewhere(Conflict):
    """Other nodes have the encryption keys in files of their own, which this would not change."""

    code = "keys_elsewhere"


class HasDemoData(Failed):
    """The deployment has demo data, whose containers do not exist."""

    code = "demo_data"


class DeploymentMismatch(Conflict):
    """The data directory and the database belong to different deployments. Nothing was changed."""

    code = "deployment_mismatch"


def is_id(text: object) -> bool:
    """Whether the text has the form of a deployment id, which becomes part of paths and names."""
    return isinstance(text, str) and re.fullmatch(r"[0-9a-f]{10}", text) is not None


def id_file() -> Path:
    return Path(settings.BOILERHOUSE_DATA_DIR) / "deployment-id"


def establish() -> str:
    """Return the deployment's id; create it on first use. Raises DeploymentMismatch."""
    try:
        return _establish()
    except IntegrityError:  # another process created it first
        return _establish()


def _establish() -> str:
    path = id_file()
    with transaction.atomic():
        row = Deployment.objects.select_for_update().first()
        stored = path.read_text().strip() if path.exists() else None
        if row and stored and row.deployment_id != stored:
            raise DeploymentMismatch(
                f"{path} contains {stored}, but the database belongs to {row.deployment_id}. Nothing was changed."
            )
        if row and not stored:
            raise DeploymentMismatch(
                f"The database belongs to deployment {row.deployment_id}, but {path} is missing. Mount its data"
                " directory there. If it is lost, restore a backup into an empty database (manage.py restore)."
            )
        if not row:
            row = Deployment.objects.create(deployment_id=stored or secrets.token_hex(5))
            if not stored:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "w") as file:
                    file.write(row.deployment_id)
                    file.flush()
                    os.fsync(file.fileno())
        register_node()
    return row.deployment_id


@cache
def _checked(data_dir: str) -> str:
    return establish()


def deployment_id() -> str:
    """The id, compared in both places once per process."""
    return _checked(str(settings.BOILERHOUSE_DATA_DIR))


def data_dir() -> Path:
    return Path(settings.BOILERHOUSE_DATA_DIR)


def is_in_place() -> bool:
    """Whether the data directory contains the deployment's id, which an empty mount point does not."""
    return id_file().is_file()


def ram_dir() -> Path:
    """The directory for config and secrets: a RAM file system whose path contains the deployment's id."""
    return Path(settings.BOILERHOUSE_RAM_DIR or f"/run/boilerhouse/{deployment_id()}")


def gateway_dir() -> Path:
    """Where the gateway's nginx keeps its files. As root it has to be outside the data directory, which the account of
    nginx's workers cannot enter."""
    return Path(f"/run/boilerhouse-gateway/{deployment_id()}") if os.geteuid() == 0 else data_dir() / "gateway"


@cache
def _node_id(directory: str) -> str:
    return keys.once(Path(directory) / "node-id", lambda: f"{socket.gethostname()[:40]}-{secrets.token_hex(3)}")


def node_id() -> str:
    """The node that owns this data directory, and so all containers' directories (hazards.md#a12)."""
    return _node_id(str(settings.BOILERHOUSE_DATA_DIR))


def register_node() -> None:
    """Create or update the row of this node, with the machine's current name."""
    name = socket.gethostname()[:64]
    node, is_new = Node.objects.get_or_create(pk=node_id(), defaults={"name": name})
    if not is_new and node.name != name:
        Node.objects.filter(pk=node.pk).update(name=name)


def certificate_file() -> Path:
    """This node's private key and certificate (``core.node_identity``)."""
    return data_dir() / "node" / "node.pem"


def has_joined() -> bool:
    """Whether the data directory has a certificate for its node id, which only the deployment gives."""
    if not certificate_file().is_file():
        return False
    from boilerhouse.core import certificates  # eight megabytes, which a deployment on one machine does not need

    try:
        return certificates.node_of(certificate_file().read_text()) == node_id()
    except (OSError, certificates.BadRequest):
        return False


def check_has_only_keys() -> None:
    """Raise KeysElsewhere if a machine has joined: it could not read what another key encrypts."""
    others = Node.objects.exclude(pk=node_id())
    if others.exists() and Node.objects.exclude(joined_at=None).exists():
        raise KeysElsewhere(
            f"{', '.join(others.values_list('pk', flat=True))} have the encryption keys in files of their own. Set"
            " BOILERHOUSE_ENCRYPTION_KEYS on all machines, the new key first, restart them, and run this once."
        )


nodes_of_rows: list[Callable[[], set[str]]] = []
"""Functions of other apps that return the nodes with containers; the apps append to it when they are loaded."""


def demo_data_file() -> Path:
    """Lists the rows of demo data, and exists while they do (``operations.demo_data``)."""
    return data_dir() / "demo-data.json"


def check_node() -> None:
    """Raise WrongNode if the database has containers of other nodes and none of this one, HasDemoData if it has demo
    data.

    A worker that started here would find neither their directories nor, at its engine, the containers. It would end all
    claims.
    """
    if demo_data_file().exists():
        raise HasDemoData(
            "This deployment has demo data, whose containers do not exist. Look at them with manage.py demo_data"
            " --serve, or remove them with manage.py demo_data --remove."
        )
    named = {node for ask in nodes_of_rows for node in ask()}
    if named and node_id() not in named and not has_joined():
        raise WrongNode(
            f"This node is {node_id()} (from {data_dir() / 'node-id'}), but the containers in the database are on"
            f" {', '.join(sorted(named))}. Their directories are not here, so nothing is started. Mount that"
            f" node's data directory at {data_dir()}, or start on that node. If it is lost, restore a backup into"
            " an empty database (manage.py restore). If this is a further machine, it must join first (manage.py join)."
        )
