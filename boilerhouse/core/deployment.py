"""Which deployment this is: a random id, kept in the data directory and in the database."""

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
    """Containers of another node are in the database and none of this one."""

    code = "wrong_node"


class DeploymentMismatch(Conflict):
    """The data directory and the database belong to different deployments; nothing is touched."""

    code = "deployment_mismatch"


def is_id(text: object) -> bool:
    """Whether it is written as ids of deployments are, which become part of paths and names."""
    return isinstance(text, str) and re.fullmatch(r"[0-9a-f]{10}", text) is not None


def _id_file() -> Path:
    return Path(settings.BOILERHOUSE_DATA_DIR) / "deployment-id"


def establish() -> str:
    """Return the deployment's id; make it on first use. Raises DeploymentMismatch."""
    try:
        return _establish()
    except IntegrityError:  # another process was first, by an instant
        return _establish()


def _establish() -> str:
    path = _id_file()
    with transaction.atomic():
        row = Deployment.objects.select_for_update().first()
        kept = path.read_text().strip() if path.exists() else None
        if row and kept and row.deployment_id != kept:
            raise DeploymentMismatch(f"{path} says {kept}, the database says {row.deployment_id}; nothing is touched.")
        if row and not kept:
            raise DeploymentMismatch(
                f"The database belongs to deployment {row.deployment_id}, but {path} is missing. Mount its data"
                f" directory there; if that is lost, restore a backup into an empty database (manage.py restore)."
            )
        if not row:
            row = Deployment.objects.create(
                deployment_id=kept or secrets.token_hex(5), next_uid=settings.BOILERHOUSE_UID_RANGE[0]
            )
            if not kept:
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
    """The id, checked against both places once per process."""
    return _checked(str(settings.BOILERHOUSE_DATA_DIR))


def data_dir() -> Path:
    return Path(settings.BOILERHOUSE_DATA_DIR)


def is_in_place() -> bool:
    """Whether the data directory holds the deployment's id: an empty mount point does not."""
    return _id_file().is_file()


def ram_dir() -> Path:
    """Where config and secrets live: a RAM file system whose path names the deployment."""
    return Path(settings.BOILERHOUSE_RAM_DIR or f"/run/boilerhouse/{deployment_id()}")


@cache
def _node_id(directory: str) -> str:
    return keys.once(Path(directory) / "node-id", lambda: f"{socket.gethostname()[:40]}-{secrets.token_hex(3)}")


def node_id() -> str:
    """The node that this data directory, and so every container's directories, lie on (hazards.md#a12)."""
    return _node_id(str(settings.BOILERHOUSE_DATA_DIR))


def register_node() -> None:
    """Have a row for this node; it is named as the machine is called now."""
    name = socket.gethostname()[:64]
    node, is_new = Node.objects.get_or_create(pk=node_id(), defaults={"name": name})
    if not is_new and node.name != name:
        Node.objects.filter(pk=node.pk).update(name=name)


nodes_of_rows: list[Callable[[], set[str]]] = []
"""What upper apps know of which nodes hold containers; they add to it when they are loaded."""


def check_node() -> None:
    """Raise WrongNode where the containers of the database lie on other nodes and none on this one.

    A worker that started here would find none of their directories, and its engine none of them.
    """
    named = {node for ask in nodes_of_rows for node in ask()}
    if named and node_id() not in named:
        raise WrongNode(
            f"This node is {node_id()}, by {data_dir() / 'node-id'}, but the containers of the database are on"
            f" {', '.join(sorted(named))}: their directories are not here, and nothing is started. Mount that node's"
            f" data directory at {data_dir()}, or start there; if it is lost, restore a backup into an empty database"
            " (manage.py restore)."
        )
