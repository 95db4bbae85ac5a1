from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from edge_agent.identity import BadIdentity, Identity
from models.contracts.base import decode
from models.contracts.control import DeviceReport, UpdateState
from tests.edge_agent.certificates import new_key, write_certificate, write_key
from tests.edge_agent.making import START, minting


def files(folder: Path, name: str = "edge-1") -> tuple[Path, Path]:
    key = new_key()
    return write_key(folder / "key.pem", key), write_certificate(folder / "cert.pem", key, name)


def test_a_report_is_signed_over_its_exact_bytes(tmp_path: Path) -> None:
    key, certificate = files(tmp_path)
    identity = Identity.load(edge="edge-1", key=key, certificate=certificate)
    report = DeviceReport(
        id=minting()(START), edge="edge-1", line="cells", counter=4, state=UpdateState.IDLE, release=0, sent_at=START
    )
    signed = identity.sign_report(report)
    public, signature = identity.certificate.public_key(), base64.b64decode(signed.signature)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(signature, signed.body.encode(), ec.ECDSA(hashes.SHA256()))
    assert decode(DeviceReport, signed.body.encode()) == report
    with pytest.raises(InvalidSignature):
        public.verify(signature, signed.body.replace('"counter":4', '"counter":5').encode(), ec.ECDSA(hashes.SHA256()))


def test_another_edges_certificate_is_refused(tmp_path: Path) -> None:
    key, certificate = files(tmp_path, "edge-2")
    with pytest.raises(BadIdentity, match=r"agent\.edge"):
        Identity.load(edge="edge-1", key=key, certificate=certificate)


def test_a_key_that_is_not_the_certificates_is_refused(tmp_path: Path) -> None:
    _, certificate = files(tmp_path)
    other = write_key(tmp_path / "other.pem", new_key())
    with pytest.raises(BadIdentity, match="does not belong"):
        Identity.load(edge="edge-1", key=other, certificate=certificate)


def test_unusable_keys_are_named(tmp_path: Path) -> None:
    _, certificate = files(tmp_path)
    (tmp_path / "text.pem").write_text("hello")
    wrong_curve = write_key(tmp_path / "p384.pem", new_key(ec.SECP384R1()))
    locked = write_key(tmp_path / "locked.pem", new_key(), passphrase=b"secret")
    for path, message in (
        (tmp_path / "text.pem", "PEM"),
        (wrong_curve, "P-256"),
        (locked, "unencrypted"),
        (tmp_path / "nowhere.pem", "identity"),
    ):
        with pytest.raises(BadIdentity, match=message):
            Identity.load(edge="edge-1", key=path, certificate=certificate)
