"""A local certificate authority: P-256 keys and certificates with the common name as identity.

For one machine, the demo and the tests. A certificate's common name is its user name at the broker (the edge's name),
and its key signs the edge's update reports. A plant may bring its own authority: nothing else asks how a certificate
came to be. Keys are written with mode 0600, certificates and keys as PEM.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Kind = Literal["server", "device"]
_USAGE = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "device": ExtendedKeyUsageOID.CLIENT_AUTH}
_BACKDATED = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Identity:
    """PEM files of one identity and the certificate's text, which is what `edge add` wants."""

    certificate: Path
    key: Path

    @property
    def pem(self) -> str:
        return self.certificate.read_text()


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    data = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _alternatives(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return x509.SubjectAlternativeName(names)


class LocalCa:
    """An authority in a folder: ``ca.pem`` and ``ca.key``. `create` makes one, `open` reads it."""

    def __init__(self, folder: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._folder, self._certificate, self._key = folder, certificate, key

    @property
    def certificate(self) -> Path:
        """The file every peer trusts."""
        return self._folder / "ca.pem"

    @classmethod
    def create(cls, folder: Path, *, now: datetime, days: int = 3650, name: str = "edgeloop local CA") -> LocalCa:
        """Make a new authority.

        Raises:
            FileExistsError: there is one already; it is never overwritten.
        """
        if (folder / "ca.pem").exists():
            raise FileExistsError(f"{folder / 'ca.pem'} exists; open it instead of making a new authority")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        usage = x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(own, critical=False)
            .sign(key, hashes.SHA256())
        )
        _write_key(folder / "ca.key", key)
        (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return cls(folder, certificate, key)

    @classmethod
    def open(cls, folder: Path) -> LocalCa:
        """Read an authority made by `create`.

        Raises:
            OSError: a file is missing. ValueError: a file is damaged.
        """
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{folder / 'ca.key'} is no elliptic-curve key")  # noqa: TRY004 - a damaged file
        return cls(folder, x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes()), key)

    def issue(self, name: str, *, kind: Kind, now: datetime, hosts: Sequence[str] = (), days: int = 825) -> Identity:
        """Make a key and a certificate for `name` (the common name) as ``<name>.pem`` and ``<name>.key``.

        Args:
            hosts: DNS names and IP addresses of a server. The common name is always one of the names.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([_USAGE[kind]]), critical=False)
            .add_extension(_alternatives([name, *hosts]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        identity = Identity(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        _write_key(identity.key, key)
        identity.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return identity


def common_name(pem: str) -> str:
    """The identity a certificate speaks for.

    Raises:
        ValueError: not a PEM certificate, not exactly one common name, or no P-256 key: reports could not be verified.
    """
    certificate = x509.load_pem_x509_certificate(pem.encode())
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        raise ValueError("the certificate has no single common name")
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise ValueError("the certificate's key is not on curve P-256")
    return str(names[0].value)
