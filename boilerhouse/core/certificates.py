"""Certificates by which nodes recognise each other, signed by an authority of the deployment's own.

Nothing here reads files or rows. Everything is PEM in text. Keys are ECDSA on P-256.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE = timedelta(days=3650)
NODE_LIFE = timedelta(days=30)
RENEW_BEFORE = NODE_LIFE / 3
"""A node renews its certificate when less than this is left, so that a machine may be away for twenty days."""
EARLY = timedelta(minutes=5)
"""Certificates are valid from this long before they are made, because clocks of machines differ."""


class BadRequest(ValueError):
    """This is no certificate, or no request for one, that the authority accepts."""


@dataclass(frozen=True, slots=True)
class Authority:
    certificate: str
    key: str


def new_authority(deployment_id: str) -> Authority:
    """An authority that has signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Boilerhouse {deployment_id}")])
    usage = x509.KeyUsage(
        key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = _builder(name, name, key.public_key(), AUTHORITY_LIFE)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return Authority(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def new_key() -> str:
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def request_for(node_id: str, key: str) -> str:
    """A request for a certificate of this node, signed with its key."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name_of(node_id))
    return builder.sign(_load_key(key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def sign(authority: Authority, request: str, node_id: str) -> str:
    """The node's certificate for calling and for being called. Raises BadRequest.

    Only the key is taken from the request: what it says about names, uses and times is not.
    """
    try:
        asked = x509.load_pem_x509_csr(request.encode())
        public, is_own = asked.public_key(), asked.is_signature_valid
    except (ValueError, TypeError) as error:
        raise BadRequest("This is no certificate request.") from error
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1) or not is_own:
        raise BadRequest("The certificate request must have a P-256 key and be signed with it.")
    issuer = x509.load_pem_x509_certificate(authority.certificate.encode())
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    key_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = _builder(_name_of(node_id), issuer.subject, public, NODE_LIFE)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(both, critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host_name(node_id))]), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False
    )
    return _pem(builder.sign(_load_key(authority.key), hashes.SHA256()))


def host_name(node_id: str) -> str:
    """The name in the node's certificate, which callers expect whatever its address is. A digest, because node ids
    contain what names in certificates do not allow or distinguish."""
    return f"{hashlib.sha256(node_id.encode()).hexdigest()[:40]}.node.boilerhouse"


def node_of(certificate: str) -> str:
    """The node that it was made for. Raises BadRequest."""
    names = _load(certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def is_signed_by(certificate: str, authority: str) -> bool:
    """Raises BadRequest."""
    try:
        _load(certificate).verify_directly_issued_by(_load(authority))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def belong_together(certificate: str, key: str) -> bool:
    """Whether this is the private key of the certificate. Raises BadRequest."""
    return _load(certificate).public_key() == _load_key(key).public_key()


def expires_at(certificate: str) -> datetime:
    """Raises BadRequest."""
    return _load(certificate).not_valid_after_utc


def fingerprint(certificate: str) -> str:
    """SHA-256 in hexadecimal. Raises BadRequest."""
    return _load(certificate).fingerprint(hashes.SHA256()).hex()


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - EARLY).not_valid_after(now + life)


def _name_of(node_id: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node_id)])


def _load(certificate: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(certificate.encode())
    except ValueError as error:
        raise BadRequest("This is no certificate.") from error


def _load_key(key: str) -> ec.EllipticCurvePrivateKey:
    loaded = serialization.load_pem_private_key(key.encode(), None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    return loaded


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
