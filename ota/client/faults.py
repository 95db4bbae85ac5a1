"""From what python-tuf raises to what the box does next. Pure.

A box that cannot tell an attack from a broken network cries wolf or sleeps; so each refusal has one reason.
"""

from __future__ import annotations

from tuf.api import exceptions as tuf_errors

from models.contracts.control import ReportReason
from ota.errors import OtaError, RefusedError, SecurityError, TransientError


def classified(fault: Exception) -> OtaError | None:
    """The error to raise for `fault`, None for one that nobody foresaw."""
    if isinstance(fault, OtaError):
        return fault
    if isinstance(fault, tuf_errors.ExpiredMetadataError):
        return RefusedError(
            f"{fault}: updating stops until the release server signs again; inspection goes on",
            reason=ReportReason.EXPIRED,
        )
    for kind, reason in _ATTACKS:
        if isinstance(fault, kind):
            return SecurityError(f"{type(fault).__name__}: {fault}", reason=reason)
    if isinstance(fault, (tuf_errors.DownloadError, OSError)):
        return TransientError(f"{type(fault).__name__}: {fault}")
    return None


_ATTACKS: tuple[tuple[type[Exception], ReportReason], ...] = (
    (tuf_errors.UnsignedMetadataError, ReportReason.SIGNATURE),
    (tuf_errors.BadVersionNumberError, ReportReason.ROLLBACK),
    (tuf_errors.LengthOrHashMismatchError, ReportReason.DIGEST),
    (tuf_errors.DownloadLengthMismatchError, ReportReason.DIGEST),
    (tuf_errors.RepositoryError, ReportReason.TAMPERED),
)
"""First match wins, so the general class comes last."""
