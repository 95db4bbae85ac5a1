"""A line's first model from a folder of `edgeloop models train` into registry and repository, and to the gate.

The base is signed with offline keys, so a person with their passphrase runs this; the release gets the trainer's
signature and then the gate's like every later one. Doing it again changes nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud.http import Problem
from cloud.jobs.hourly import GATE, RENEW
from cloud.registry.service import BadEntry
from models.runtime.bundle import BadBundle, Bundle, read_starting
from ota.keys import KeyFolder

if TYPE_CHECKING:
    from cloud.bootstrap import Services


def publish_first(services: Services, *, line: str, folder: Path, keys: Path, passphrase: str) -> dict[str, Any]:
    """Register and sign; returns ``{"base", "release", "candidate"}``.

    Raises:
        Problem: 404 for an unknown line, 409 when the model does not fit the line or its number is taken.
        ota.errors.PublishError: a key or the repository refuses.
    """
    spec = services.lines.get(line)
    try:
        bundle = read_starting(folder)
    except BadBundle as fault:
        raise Problem(409, "bad_model", str(fault)) from fault
    _refuse_misfit(bundle, line, [one.name for one in spec.class_specs])
    ceremony = KeyFolder(keys, passphrase.encode())
    return publish_bundle(services, bundle, ceremony)


def publish_bundle(services: Services, bundle: Bundle, keys: KeyFolder) -> dict[str, Any]:
    """Base into registry and repository, release to the gate. Raises as `publish_first`."""
    manifest = bundle.adapter
    _refuse_beside_renewal(services, manifest.line)
    try:
        services.registry.add_base(
            bundle.base, bundle.files, bundle.checkpoint, language=bundle.language, actor="first release"
        )
        if manifest.line not in services.repository.lines():
            services.repository.add_line(manifest.line, keys)
        services.repository.add_base(bundle.base, bundle.files, keys.offline("base"), keys.online())
        proposal = services.repository.propose_adapter(manifest, bundle.blobs, keys.signer("trainer"))
        candidate = services.registry.add_candidate(
            manifest, bundle.blobs, base_sha=manifest.base, metrics=bundle.metrics, proposal=proposal
        )
    except BadEntry as fault:
        raise Problem(409, "conflict", str(fault)) from fault
    with services.begin() as session:
        key = f"{GATE}/{manifest.line}/{manifest.release}"
        services.jobs.enqueue(session, GATE, key, {"candidate": candidate})
    return {"base": manifest.base, "release": manifest.release, "candidate": candidate}


def _refuse_beside_renewal(services: Services, line: str) -> None:
    """Both are the next version of the adapter role: the gate would sign the renewal and could not sign the release."""
    with services.reads() as session:
        if services.jobs.in_flight(session, line, (RENEW,)):
            raise Problem(
                409, "renewal_in_flight",
                f"the signatures of line {line} are being renewed: let the gate worker run, then publish again.",
            )  # fmt: skip


def _refuse_misfit(bundle: Bundle, line: str, classes: list[str]) -> None:
    if bundle.adapter.line != line:
        raise Problem(409, "wrong_line", f"the model was trained for line {bundle.adapter.line}, not {line}.")
    have = [one.name for one in bundle.adapter.head.classes]
    if have != classes:
        raise Problem(
            409, "wrong_classes",
            f"the model's classes are {', '.join(have)}; line {line} has {', '.join(classes)}, in this order.",
        )  # fmt: skip
