"""Who this box is: its certificate, its key, and its signature under what it reports."""

from __future__ import annotations

import base64
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from models.contracts.control import DeviceReport, SignedReport


class BadIdentity(ValueError):
    """Key or certificate cannot be used. The text names the file and what to do."""


class Identity:
    """An ECDSA P-256 key with its certificate. The key never leaves this object."""

    def __init__(self, *, edge: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.edge, self.certificate = edge, certificate
        self._key = key

    @classmethod
    def load(cls, *, edge: str, key: Path, certificate: Path) -> Identity:
        """From two PEM files.

        Raises:
            BadIdentity: a file is missing or no PEM, the key is no unencrypted P-256 key, it does not belong to the
                certificate, or the certificate's common name is not `edge`.
        """
        private = _read_key(key)
        cert = _read_certificate(certificate)
        if cert.public_key() != private.public_key():
            raise BadIdentity(f"{key} does not belong to {certificate}: enrol the box again")
        names = [str(name.value) for name in cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        if names != [edge]:
            raise BadIdentity(
                f"{certificate} is for {names or 'nobody'}, the agent is {edge!r}: set agent.edge to match"
            )
        return cls(edge=edge, key=private, certificate=cert)

    def sign_report(self, report: DeviceReport) -> SignedReport:
        """ECDSA with SHA-256 (FIPS 186-5) over the report's canonical UTF-8 bytes, DER in base64."""
        body = report.encode()
        signature = self._key.sign(body, ec.ECDSA(hashes.SHA256()))
        return SignedReport(
            id=report.id, edge=self.edge, body=body.decode(), signature=base64.b64encode(signature).decode()
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as fault:
        raise BadIdentity(f"{path}: {fault.strerror or fault}; check the [identity] section") from fault


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    data = _read(path)
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as fault:
        raise BadIdentity(f"{path}: not an unencrypted PEM private key") from fault
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadIdentity(f"{path}: a P-256 key is needed")
    return key


def _read_certificate(path: Path) -> x509.Certificate:
    data = _read(path)
    try:
        return x509.load_pem_x509_certificate(data)
    except ValueError as fault:
        raise BadIdentity(f"{path}: not a PEM certificate") from fault
