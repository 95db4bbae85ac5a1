"""The local authority: P-256, the name is the identity, keys are private, chains verify."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, Store

from cloud.identity import LocalCa, common_name

NOW = datetime.now(UTC)


def test_it_issues_what_a_verifier_accepts(tmp_path: Path) -> None:
    ca = LocalCa.create(tmp_path, now=NOW)
    server = ca.issue("broker", kind="server", now=NOW, hosts=["127.0.0.1", "localhost"])
    root = x509.load_pem_x509_certificate(ca.certificate.read_bytes())
    leaf = x509.load_pem_x509_certificate(server.certificate.read_bytes())
    verifier = PolicyBuilder().store(Store([root])).time(NOW).build_server_verifier(x509.DNSName("localhost"))
    assert verifier.verify(leaf, [])[0] == leaf
    device = LocalCa.open(tmp_path).issue("edge-1", kind="device", now=NOW)
    assert common_name(device.pem) == "edge-1"
    assert server.key.stat().st_mode & 0o777 == 0o600
    context = ssl.create_default_context(cafile=str(ca.certificate))
    context.load_cert_chain(device.certificate, device.key)


def test_an_authority_is_never_overwritten(tmp_path: Path) -> None:
    LocalCa.create(tmp_path, now=NOW)
    with pytest.raises(FileExistsError, match="open it"):
        LocalCa.create(tmp_path, now=NOW)


def test_a_certificate_without_a_p256_key_or_one_name_is_refused() -> None:
    key = rsa.generate_private_key(65537, 2048)

    def certificate(*names: str) -> str:
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text) for text in names])
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = builder.serial_number(1).not_valid_before(NOW).not_valid_after(NOW + timedelta(days=1))
        return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()

    with pytest.raises(ValueError, match="P-256"):
        common_name(certificate("edge-1"))
    with pytest.raises(ValueError, match="single common name"):
        common_name(certificate())
    with pytest.raises(ValueError, match="PEM"):
        common_name("nonsense")
