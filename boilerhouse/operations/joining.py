"""How this machine becomes a node of a deployment: it asks with a token, and stores what it gets in its data directory.

The database's address is not handed over: the operator sets DATABASE_URL, because only they know by which address this
machine reaches the server. It is used first, so that a machine without the right database costs no token.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from django.conf import settings
from django.db import DatabaseError, connection

from boilerhouse.core import certificates, deployment, encryption, keys, node_identity, node_tokens
from boilerhouse.core.deployment import data_dir, node_id
from boilerhouse.core.errors import Conflict, Failed
from boilerhouse.core.models import CertificateAuthority, Deployment

TIMEOUT_S = 30.0
MAX_ANSWER = 1 << 18


class NotJoined(Failed):
    """This machine has not joined. Its data directory is unchanged."""

    code = "not_joined"


class JoinRefused(Conflict):
    """The deployment refused this machine. The machine's data directory is unchanged."""

    code = "join_refused"


@dataclass(frozen=True, slots=True)
class Joined:
    deployment_id: str
    node_id: str
    are_keys_given: bool


def join(url: str, token: str, *, ca_file: str = "") -> Joined:
    """This machine is a node of the deployment at ``url``, and has its keys and a certificate.

    ``ca_file`` has the certificates that verify the deployment's web server; empty: the system's. May be repeated with
    another token, which renews the certificate. Raises NotJoined, JoinRefused, OneMachineOnly.
    """
    expected = _deployment_of_database()
    _check_directory(expected)
    address = _address(url)
    key = certificates.new_key()
    answer = _ask(address, ca_file, {
        "token": token, "nodeId": node_id(), "name": socket.gethostname()[:64], "deploymentId": expected,
        "version": settings.VERSION, "time": datetime.now(UTC).isoformat(),
        "certificateRequest": certificates.request_for(node_id(), key),
    })  # fmt: skip
    _check_answer(answer, expected)
    _store(answer, key)
    return Joined(expected, node_id(), bool(answer["areKeysGiven"]))


def _deployment_of_database() -> str:
    """The deployment to which DATABASE_URL leads."""
    if connection.vendor == "sqlite":
        raise node_tokens.OneMachineOnly(
            "DATABASE_URL is not set or names SQLite. Nodes share the deployment's PostgreSQL: set DATABASE_URL to it,"
            " as this machine reaches it."
        )
    try:
        row = Deployment.objects.first()
    except DatabaseError as error:
        words = str(error).strip().splitlines()
        raise NotJoined(f"The database of DATABASE_URL does not answer: {words[0] if words else error}") from error
    if row is None:
        raise NotJoined("The database of DATABASE_URL has no deployment. Start the first machine before others join.")
    return row.deployment_id


def _check_directory(expected: str) -> None:
    stored = deployment.id_file()
    if stored.exists() and (present := stored.read_text().strip()) != expected:
        raise NotJoined(
            f"{data_dir()} belongs to deployment {present}, and DATABASE_URL to {expected}. Use an empty data"
            " directory."
        )


def _address(url: str) -> str:
    """Keys are handed over, so the connection is encrypted, or does not leave this machine."""
    parts = urlsplit(url)
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise NotJoined(
            "The deployment hands over its keys, so the URL must begin with https://. Without TLS there, forward a port"
            " (ssh -L 8000:127.0.0.1:8000 FIRST) and join http://127.0.0.1:8000."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NotJoined(f"{url} is not the address of a deployment: https://boilerhouse.example.com")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/api/v1/nodes/join"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _ask(address: str, ca_file: str, body: dict[str, Any]) -> dict[str, Any]:
    session = requests.Session()
    session.trust_env = False
    options: dict[str, Any] = {"timeout": TIMEOUT_S, "allow_redirects": False, "stream": True}
    options["verify"] = ca_file or settings.BOILERHOUSE_CA_BUNDLE or True
    try:
        with session, session.post(address, json=body, **options) as answer:
            content = answer.raw.read(MAX_ANSWER, decode_content=True)
            answer._content = content
            return _read(answer)
    except requests.exceptions.SSLError as error:
        detail = "The certificate of the deployment's web server cannot be verified (--ca FILE)."
        raise NotJoined(detail) from error
    except (requests.RequestException, OSError) as error:
        raise NotJoined(f"The deployment cannot be reached ({type(error).__name__}).") from error


def _read(answer: requests.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        body = None
    if answer.status_code == 200 and isinstance(body, dict):
        return body
    if isinstance(body, dict) and body.get("code"):
        raise JoinRefused(str(body.get("detail"))[:1000])
    raise NotJoined(f"This is not the address of a deployment: the answer was {answer.status_code}.")


def _check_answer(answer: dict[str, Any], expected: str) -> None:
    """Nothing is stored that does not fit this database, or what the environment sets."""
    trusted = CertificateAuthority.objects.values_list("certificate", flat=True).first()  # its key cannot be read yet
    if answer["deploymentId"] != expected or trusted != answer["authority"]:
        raise NotJoined("The deployment at the URL is not that of DATABASE_URL.")
    given = {
        "BOILERHOUSE_SECRET_KEY": (settings.SECRET_KEY, answer["secretKey"], "secret-key"),
        "BOILERHOUSE_KEY_PEPPER": (settings.BOILERHOUSE_KEY_PEPPER, answer["keyPepper"], "key-pepper"),
    }
    wrong = [name for name, (mine, theirs, file) in given.items() if mine != theirs and not _is_stored(file, mine)]
    mine, theirs = tuple(settings.BOILERHOUSE_ENCRYPTION_KEYS), tuple(answer["encryptionKeys"])
    if wrong := wrong + ["BOILERHOUSE_ENCRYPTION_KEYS"] * (bool(mine) and mine != theirs):
        raise NotJoined(
            f"{' and '.join(wrong)} differ{'s' * (len(wrong) == 1)} from the deployment's. Set the same, or none. The"
            " token is used up: make another."
        )


def _is_stored(name: str, value: str) -> bool:
    """Whether the key is that of the data directory, which is replaced, and not of the environment."""
    path = data_dir() / "keys" / name
    return path.exists() and path.read_text().strip() == value


def _store(answer: dict[str, Any], key: str) -> None:
    """The deployment's id is last: with it, processes start here."""
    directory = data_dir() / "keys"
    keys.replace(directory / "secret-key", answer["secretKey"])
    keys.replace(directory / "key-pepper", answer["keyPepper"])
    keys.replace(encryption.key_file(), ",".join(answer["encryptionKeys"]))
    node_identity.write(key=key, certificate=answer["certificate"], authority_certificate=answer["authority"])
    keys.replace(deployment.id_file(), answer["deploymentId"])
