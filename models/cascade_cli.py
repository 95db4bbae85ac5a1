"""`edgeloop models cascade`: pick where a gate may be certain, put the cuts into its release, measure the throughput.

Exit codes: 0 ok, 1 error, 2 usage, 4 no cuts meet the limits.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from models.cascade_text import bench_text, calibration_text
from models.images_cli import read_images
from models.terminal import AsJson, fail, say

if TYPE_CHECKING:
    from models.cascade_images import Judging
    from models.contracts.model_manifest import AdapterManifest, CascadeCuts
    from models.nn.starting import LabelledImage
    from models.runtime.bundle import Bundle
    from models.runtime.cascade_fit import Cost, RiskLimits, Scored
    from models.runtime.inspector import LineModel

cascade = typer.Typer(no_args_is_help=True, help="A small model in front of a big one.", pretty_exceptions_enable=False)
NONE_MEETS = 4
CURVE = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)

Gate = Annotated[Path, typer.Argument(help="The small model: a folder made by train.")]
Big = Annotated[Path, typer.Argument(help="The line's model: a folder made by train.")]


@cascade.command()
def calibrate(
    gate: Gate,
    big: Big,
    *,
    data: Annotated[Path, typer.Option(help="Labelled images that neither model was trained on, as for train.")],
    out: Annotated[Path, typer.Option(help="JSON file for the cuts and what they cost.")],
    added_escape: Annotated[float, typer.Option(help="Most added escapes, as a share of defects.")],
    added_overkill: Annotated[float, typer.Option(help="Most added overkill, of good parts.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the split into two halves.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Pick the least escalation whose added risk stays within the limits, or say that none does (exit 4).

    Cuts are picked on one half of the images (whole groups together) and judged on the other. Each limit holds at 95 %
    by itself, both together at 90 % at least; "ok" means that the other half does not rule them out. Copies of an image
    and images that a model's own folder holds are left out.
    """
    from models.runtime.cascade_fit import RiskLimits, contradicted, cost, curve, pick

    _provable(added_escape, "--added-escape"), _provable(added_overkill, "--added-overkill")
    _writable(out)
    first, second = _model(gate), _model(big)
    _same_classes(first, second)
    _not_the_same(first, second)
    found = _judging(data, (gate, big))
    halves = [_score(first, second, images) for images in _halves(found.images, data, second, seed)]
    fit, judge = halves
    call_at, limits = first.thresholds.call_at, RiskLimits(added_escape, added_overkill)
    cuts = pick(fit, limits, call_at=call_at).model_copy(update={"calibrated_against": second.manifest_sha})
    picked, judged = cost(fit, cuts), cost(judge, cuts)
    none = cuts.certain_pass_below is None and cuts.certain_reject_above is None
    document = {
        "schema": 1, "ok": not none and not contradicted(judged, limits), "limits": asdict(limits), "seed": seed,
        "left_out": {"copies": found.copies, "own": found.own},
        "gate": first.manifest_sha, "big": second.manifest_sha, "call_at": call_at,
        "gate_pretrained": first.base.manifest.pretrained, "big_pretrained": second.base.manifest.pretrained,
        "cuts": cuts.model_dump(mode="json", exclude_none=True),
        "picked_on": _plain(picked), "judged_on": _plain(judged),
        "curve": [_plain(row) for row in curve(fit, judge, call_at=call_at, shares=CURVE)],
    }  # fmt: skip
    try:
        out.write_text(json.dumps(document, sort_keys=True, indent=1), encoding="utf-8")
    except OSError as fault:
        fail(f"--out {out}: {fault.strerror or fault}")
    print(json.dumps(document, sort_keys=True) if as_json else calibration_text(document))
    if none:
        _fail_for_want_of_images(picked, limits)
    if not document["ok"]:
        fail("the other half of the images rules the limits out; the cuts must not be used", NONE_MEETS)


def _provable(limit: float, option: str) -> None:
    if not 0 < limit <= 1:
        fail(f"{option} {limit:g}: no number of images proves a risk of zero; give a limit above 0, at most 1", 2)


def _writable(out: Path) -> None:
    """Found out before minutes of scoring."""
    import os
    import tempfile

    if out.is_dir():
        fail(f"--out {out} is a folder: give a file's name", 2)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as fault:
        fail(f"--out {out} cannot be written: {fault.strerror or fault}", 2)
    if out.exists() and not os.access(out, os.W_OK):
        fail(f"--out {out} cannot be written: it is read-only", 2)


def _fail_for_want_of_images(picked: Cost, limits: RiskLimits) -> NoReturn:
    from models.runtime.cascade_fit import least_images

    need = (least_images(limits.added_escape), least_images(limits.added_overkill))
    have = (picked.defects, picked.images - picked.defects)
    fail(
        f"no escalation below 100 % meets the limits: with no fault at all they need {need[0]} defects and "
        f"{need[1]} good parts to pick on, there are {have[0]} and {have[1]}; give more images, a better gate or "
        "wider limits",
        NONE_MEETS,
    )


@cascade.command()
def apply(
    gate: Gate,
    *,
    cuts: Annotated[Path, typer.Option(help="The file calibrate wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for the gate with its cuts; must not exist.")],
    release: Annotated[int | None, typer.Option(min=1, help="Its number; the gate's own if not given.")] = None,
) -> None:
    """Write the gate again with the cuts in its manifest: once published they travel signed, like thresholds."""
    from models.contracts.base import Malformed, parse_as
    from models.contracts.model_manifest import AdapterManifest

    if out.exists():
        fail(f"{out} exists already: choose another --out", 2)
    if out.resolve().is_relative_to(gate.resolve()):
        fail(f"--out {out} lies in the gate's own folder: choose one beside it", 2)
    bundle = _bundle(gate)
    found = _cuts(cuts, bundle)
    fields = bundle.adapter.model_dump(mode="json", exclude_none=True) | _numbered(bundle, release)
    try:
        changed = parse_as(AdapterManifest, fields | {"cascade": found.model_dump(mode="json", exclude_none=True)})
    except Malformed as fault:
        fail(f"{cuts} is not what calibrate writes: {fault}", 2)
    _copy(gate, out, changed)
    print(f"{out}: release {changed.release} of line {changed.line} with cascade cuts, {changed.digest()[:12]}")


def _cuts(path: Path, bundle: Bundle) -> CascadeCuts:
    """What calibrate found for this gate; ends the command on anything it did not write or did not grant."""
    from models.contracts.base import Malformed, parse_as, parse_json
    from models.contracts.model_manifest import CascadeCuts

    try:
        document = parse_json(path.read_bytes())
        found, ok, big = parse_as(CascadeCuts, document["cuts"]), document["ok"], document["big"]
        calibrated_for = document["gate"]
    except OSError as fault:
        fail(f"{path}: {fault.strerror or fault}", 2)
    except (Malformed, KeyError, TypeError) as fault:
        fail(f"{path} is not what calibrate writes: {fault}", 2)
    if ok is False:
        fail(f"{path} says that no cuts meet the limits: nothing was written", NONE_MEETS)
    if ok is not True:
        fail(f"{path} is not what calibrate writes: ok must be true or false", 2)
    if found.certain_pass_below is None and found.certain_reject_above is None:
        fail(f"{path} is not what calibrate writes: it is ok and yet has no cut", 2)
    if found.calibrated_against is None or found.calibrated_against != big:
        fail(f"{path} is not what calibrate writes: its cuts do not name the big model they were calibrated for", 2)
    if calibrated_for != bundle.adapter.digest():
        fail(f"{path} was calibrated for another gate: calibrate this one", 2)
    return found


def _copy(gate: Path, out: Path, changed: AdapterManifest) -> None:
    """The gate's folder with another manifest; complete only when whole, and nothing is left of a failed one."""
    import shutil

    try:
        shutil.copytree(gate, out, ignore=shutil.ignore_patterns("complete", "adapter.json"))
        (out / "adapter.json").write_bytes(changed.encode())
        (out / "complete").touch()
    except shutil.Error as fault:
        shutil.rmtree(out, ignore_errors=True)
        fail(f"--out {out} cannot be written: {fault.args[0][0][2]}", 2)
    except OSError as fault:
        shutil.rmtree(out, ignore_errors=True)
        fail(f"--out {out} cannot be written: {fault.strerror or fault}", 2)


def _numbered(bundle: Bundle, release: int | None) -> dict[str, Any]:
    """Number and version of the release; the version carries the number as `models.nn.release.Identity` writes it."""
    if release is None:
        return {}
    return {"release": release, "model_version": f"{bundle.adapter.line}-r{release}"}


@cascade.command()
def bench(
    gate: Gate,
    big: Annotated[Path, typer.Argument(help="The line's model, or a base made by build: only its time counts.")],
    *,
    data: Annotated[Path, typer.Option(help="Images, as for train.")],
    parts: Annotated[int, typer.Option(min=20, help="Parts that pass through the cascade.")] = 100,
    escalation: Annotated[float, typer.Option(min=0, max=1, help="Share of parts to escalate.")] = 0.1,
    audit: Annotated[float, typer.Option(min=0, max=1, help="Share of parts to audit.")] = 0.02,
    threads: Annotated[int, typer.Option(min=1, help="Of each model.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Throughput of the cascade against the big model alone, in turns on this machine; exit 1 below the target."""
    from models.nn.bench.cascade import Wish, measure, passes
    from models.nn.starting import CannotTrain, decoded
    from models.runtime.bundle import BadBundle, read_base

    if not escalation + audit <= 1:
        fail("--escalation and --audit together are more than all parts", 2)
    first = _bundle(gate)
    try:
        read_base(big)
        frames = decoded(_images(data)[:parts])
    except BadBundle as fault:
        fail(f"{fault}; give a folder that edgeloop models train or build made", 2)
    except CannotTrain as fault:
        fail(str(fault), 2)
    wish = Wish(parts=parts, escalation=escalation, audit=audit, threads=threads)
    found = measure(first, big, frames, wish, say=say)
    document = {"schema": 1, "ok": passes(found), **asdict(found), "target": found.target, "speedup": found.speedup}
    print(json.dumps(document, sort_keys=True) if as_json else bench_text(document))
    raise typer.Exit(0 if document["ok"] else 1)


def _bundle(folder: Path) -> Bundle:
    from models.runtime.bundle import BadBundle, is_complete, read_starting

    if not is_complete(folder) or not (folder / "adapter.json").exists():
        fail(f"{folder}: give a folder that edgeloop models train made (its --out)", 2)
    try:
        return read_starting(folder)
    except BadBundle as fault:
        fail(str(fault))


def _model(folder: Path) -> LineModel:
    return _bundle(folder).model()


def _same_classes(gate: LineModel, big: LineModel) -> None:
    """A box refuses to use a gate that names classes the line's model does not know."""
    known = {spec.name: spec.defect for spec in big.head.classes}
    for spec in gate.head.classes:
        if known.get(spec.name) is not spec.defect:
            fail(f"the gate's class {spec.name!r} is none of the big model's, or of the other kind there", 2)


def _images(data: Path) -> list[LabelledImage]:
    images = read_images(data)
    if not images:
        fail(f"{data} has no images", 2)
    return images


def _not_the_same(gate: LineModel, big: LineModel) -> None:
    """Against itself a model adds no risk: the cuts would say nothing. A number or cuts make no other model."""
    one, other = (
        (m.manifest.base, m.manifest.head.blob.sha256, m.manifest.adapter, m.manifest.roi) for m in (gate, big)
    )
    if one == other:
        fail("the gate and the big model are the same model: give the line's own model as the second", 2)


def _judging(data: Path, folders: tuple[Path, Path]) -> Judging:
    """The images of `data` that may judge; says how many may not."""
    from models.cascade_images import OWN, TwoLabels, judging, own_digests

    images, own = _images(data), set[str]()
    for folder in folders:
        try:
            found = own_digests(folder)
        except OSError as fault:
            fail(f"{folder}: its own images cannot be read: {fault.strerror or fault}")
        if not found:
            say(f"{folder} has no {' or '.join(OWN)} images: what it was trained on cannot be told from --data")
        own |= found
    try:
        kept = judging(images, own)
    except TwoLabels as fault:
        fail(str(fault), 2)
    if kept.copies:
        say(f"{kept.copies} of {len(images)} images are copies of another one and were left out")
    if kept.own:
        say(f"{kept.own} of {len(images)} images are among those a model learned or was set on, and were left out")
    if not kept.images:
        fail(f"every image of {data} is one that a model learned or was set on: give images neither has seen", 2)
    return kept


def _halves(
    images: list[LabelledImage], data: Path, model: LineModel, seed: int
) -> tuple[list[LabelledImage], list[LabelledImage]]:
    from models.nn.starting import CannotTrain, split

    known = {spec.name for spec in model.head.classes}
    if strange := sorted({image.label for image in images} - known):
        fail(f"the label {strange[0]!r} is no class of the big model; it has: {', '.join(sorted(known))}", 2)
    kinds = {next(s.defect for s in model.head.classes if s.name == image.label) for image in images}
    if len(kinds) < 2:
        fail(f"{data} needs good and defective images that neither model has seen", 2)
    try:
        return split(images, share=0.5, seed=seed)
    except CannotTrain as fault:
        fail(str(fault), 2)


def _score(gate: LineModel, big: LineModel, images: list[LabelledImage]) -> Scored:
    """Both models on every image."""
    import numpy as np

    from models.nn.starting import CannotTrain, decoded
    from models.runtime.cascade_fit import Scored, verdict_of
    from models.runtime.inspector import inspect

    def score(model: LineModel, pixels: Any) -> float:
        found = inspect(model, pixels).probabilities
        return float("nan") if found is None else min(float(found[model.head.defect_mask].sum()), 1.0)

    say(f"scoring {len(images)} images with both models")
    try:
        frames = decoded(images)
    except CannotTrain as fault:
        fail(str(fault), 2)
    defect = {spec.name: spec.defect for spec in big.head.classes}
    return Scored(
        gate=np.array([score(gate, pixels) for pixels in frames]),
        big=[verdict_of(score(big, pixels), big.thresholds) for pixels in frames],
        defect=np.array([defect[image.label] for image in images]),
    )


def _plain(found: Cost) -> dict[str, Any]:
    return {**asdict(found), "cuts": found.cuts.model_dump(mode="json", exclude_none=True)}
