"""This node's certificate, in its data directory, and the authority of the deployment that signs it.

Every node has the database and the keys, so it renews its certificate by itself (ADR 97). One file holds the private
key and the certificate, so that a reader never sees one of before and one of after a renewal.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from django.db import transaction

from boilerhouse.core import certificates, keys
from boilerhouse.core.certificates import Authority, BadRequest
from boilerhouse.core.deployment import certificate_file, data_dir, deployment_id, node_id, register_node
from boilerhouse.core.models import CertificateAuthority, Node

_BEGIN = "-----BEGIN CERTIFICATE-----"


def authority_file() -> Path:
    """The authority's certificate, by which this node recognises others."""
    return data_dir() / "node" / "authority.pem"


def authority() -> Authority:
    """The deployment's authority; made on first use."""
    row = CertificateAuthority.objects.first()
    if row is None:
        made = certificates.new_authority(deployment_id())
        values = {"certificate": made.certificate, "key": made.key}
        row, _ = CertificateAuthority.objects.get_or_create(pk=1, defaults=values)
    return Authority(row.certificate, row.key)


def write(*, key: str, certificate: str, authority_certificate: str) -> None:
    """The data directory has this identity from now on."""
    keys.replace(authority_file(), authority_certificate)
    keys.replace(certificate_file(), key + certificate)


def certificate() -> str:
    """The certificate in the data directory; empty if there is none."""
    return _read()[1]


def _read() -> tuple[str, str]:
    """Private key and certificate; both empty if there are none."""
    try:
        text = certificate_file().read_text()
    except FileNotFoundError:
        return "", ""
    key, begin, rest = text.partition(_BEGIN)
    return key, begin + rest


def renew() -> bool:
    """This node has a certificate that is valid for a while, and its row names it. Returns whether it is a new one.

    Makes the authority if there is none. Several processes of a node may do this at once.
    """
    signer = authority()
    with transaction.atomic():
        register_node()
        node = Node.objects.select_for_update(no_key=True).get(pk=node_id())
        key, present = _read()
        is_new = not _is_good(key, present, signer)
        if is_new:
            key = certificates.new_key()
            present = certificates.sign(signer, certificates.request_for(node_id(), key), node_id())
            write(key=key, certificate=present, authority_certificate=signer.certificate)
        _record(node, present)
    return is_new


def _is_good(key: str, present: str, signer: Authority) -> bool:
    try:
        return (
            certificates.is_signed_by(present, signer.certificate)
            and certificates.node_of(present) == node_id()
            and certificates.belong_together(present, key)
            and certificates.expires_at(present) - datetime.now(UTC) > certificates.RENEW_BEFORE
            and authority_file().is_file()
            and authority_file().read_text() == signer.certificate
        )
    except (BadRequest, ValueError):
        return False


def _record(node: Node, present: str) -> None:
    fingerprint, expires_at = certificates.fingerprint(present), certificates.expires_at(present)
    if node.certificate_sha256 != fingerprint:
        Node.objects.filter(pk=node.pk).update(certificate_sha256=fingerprint, certificate_expires_at=expires_at)
