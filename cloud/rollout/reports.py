"""Taking a box's signed word: only with its own key, only once, only forward.

The signature is ECDSA P-256 with SHA-256 over the body's exact bytes, by the key in the certificate the box was
enrolled with. The counter must be above the highest seen: a recorded report cannot be played again. Nothing is parsed
before the signature holds.
"""

from __future__ import annotations

import base64
import binascii
from enum import StrEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_pem_x509_certificate
from sqlalchemy import select

from cloud import audit
from cloud.clock import NowUs
from cloud.db.session import Begin
from cloud.db.tables import DeviceReportRow, Edge
from models.contracts.base import Malformed, decode
from models.contracts.control import SECURITY_REASONS, DeviceReport, SignedReport


class BadReport(ValueError):
    """The report is not the box's word. The text says why."""


class Taken(StrEnum):
    """What became of a report."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    REPLAYED = "replayed"
    REFUSED = "refused"


def verified(report: SignedReport, certificate: str | None, line: str | None) -> DeviceReport:
    """The body, after its signature held.

    Args:
        certificate: PEM, as enrolled; None for a box nobody enrolled.
        line: the box's line.

    Raises:
        BadReport: no certificate, a wrong signature or key type, or a body that is no report of this box and line.
    """
    if certificate is None:
        raise BadReport(f"box {report.edge} has no certificate on record; enrol it again")
    key = load_pem_x509_certificate(certificate.encode()).public_key()
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise BadReport(f"the certificate of box {report.edge} holds no P-256 key; enrol it again")
    body = report.body.encode()
    try:
        key.verify(base64.b64decode(report.signature, validate=True), body, ECDSA(SHA256()))
    except (InvalidSignature, binascii.Error, ValueError) as fault:
        raise BadReport(f"the signature is not that of box {report.edge}") from fault
    try:
        inner = decode(DeviceReport, body)
    except Malformed as fault:
        raise BadReport(f"signed, and still no report: {fault}") from fault
    if (inner.edge, inner.id) != (report.edge, report.id):
        raise BadReport(f"box {report.edge} signed a report in the name of {inner.edge}")
    if inner.line != line:
        raise BadReport(f"box {report.edge} reports for line {inner.line}, which is not its line")
    return inner


class ReportDesk:
    """Verifies and keeps reports."""

    def __init__(self, *, begin: Begin, now: NowUs) -> None:
        self._begin, self._now = begin, now

    def take(self, report: SignedReport) -> Taken:
        """Verify and keep one report; what is refused is audited, a replay is dropped."""
        with self._begin() as session:
            edge = session.get(Edge, report.edge, with_for_update=True)
            try:
                inner = verified(report, *((None, None) if edge is None else (edge.certificate, edge.line)))
            except BadReport as fault:
                audit.record(
                    session, at=self._now(), actor=f"edge:{report.edge}", action="report.refused", subject=report.id,
                    reason=str(fault),
                )  # fmt: skip
                return Taken.REFUSED
            assert edge is not None  # noqa: S101 - a report of an unknown box has no certificate to hold by
            if inner.counter <= edge.report_counter:
                query = select(DeviceReportRow).where(
                    DeviceReportRow.edge == inner.edge, DeviceReportRow.counter == inner.counter
                )
                seen = session.scalars(query).first()
                return Taken.DUPLICATE if seen is not None and seen.report.get("id") == inner.id else Taken.REPLAYED
            edge.report_counter, edge.release, edge.update_state = inner.counter, inner.release, inner.state.value
            session.add(_row(inner, self._now()))
            if inner.reason in SECURITY_REASONS:
                audit.record(
                    session, at=self._now(), actor=f"edge:{inner.edge}", action="report.security",
                    subject=f"{inner.line} release {inner.attempted or inner.release}", reason=inner.detail,
                    evidence={"reason": inner.reason.value, "counter": inner.counter},
                )  # fmt: skip
            return Taken.STORED


def _row(report: DeviceReport, now: int) -> DeviceReportRow:
    return DeviceReportRow(
        edge=report.edge,
        line=report.line,
        counter=report.counter,
        state=report.state.value,
        release=report.release,
        attempted=report.attempted,
        loaded=report.loaded,
        reason=None if report.reason is None else report.reason.value,
        report=report.model_dump(mode="json", exclude_none=True),
        received_at=now,
    )
