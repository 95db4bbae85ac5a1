"""A model from a folder of `edgeloop models train` or `cascade apply` into registry and repository, and to the gate.

A line's first model comes this way, and every later release that is not learned in the cloud: a gate with new cuts.

The base is signed with offline keys, so a person with their passphrase runs this; the release gets the trainer's
signature and then the gate's like every later one. Doing it again changes nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud.http import Problem
from cloud.jobs.hourly import BUSY, GATE
from cloud.registry import repository
from cloud.registry.service import BadEntry
from models.runtime.bundle import BadBundle, Bundle, read_starting
from ota.keys import KeyFolder

if TYPE_CHECKING:
    from cloud.bootstrap import Services
    from models.contracts.model_manifest import AdapterManifest


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
    if not _is_there(services, manifest):
        _refuse_number(services, manifest)
        _refuse_beside_another(services, manifest.line)
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


def _is_there(services: Services, manifest: AdapterManifest) -> bool:
    """Whether this very release was handed in before."""
    with services.reads() as session:
        known = repository.candidate(session, manifest.line, manifest.release)
        return known is not None and known.manifest_sha == manifest.digest()


def _refuse_number(services: Services, manifest: AdapterManifest) -> None:
    """Refused before the base is signed: a number that is gone or that leaves a gap helps nobody."""
    line, asked, following = manifest.line, manifest.release, services.registry.next_release(manifest.line)
    if asked == following:
        return
    why = f"is taken by another model; the next is {following}" if asked < following else f"is not next: {following} is"
    command = "models cascade apply ... " if manifest.cascade is not None else "models train ... "
    raise Problem(
        409, "wrong_release",
        f"release {asked} of line {line} {why}. Publish it as release {following}: "
        f"edgeloop {command}--release {following}",
    )  # fmt: skip


def _refuse_beside_another(services: Services, line: str) -> None:
    """Each is the next version of the adapter role: the gate would sign the first and could not sign the second."""
    with services.reads() as session:
        if services.jobs.in_flight(session, line, BUSY):
            raise Problem(
                409, "role_in_flight",
                f"line {line} is learning, or a release or its signatures wait for the gate: let the workers finish, "
                "then publish again.",
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
