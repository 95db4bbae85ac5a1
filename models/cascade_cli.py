"""`edgeloop models cascade`: pick where a gate may be certain, put the cuts into its release, measure the throughput.

Exit codes: 0 ok, 1 error, 2 usage, 4 no cuts meet the limits.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from models.images_cli import read_images
from models.terminal import AsJson, fail, say

if TYPE_CHECKING:
    from models.nn.starting import LabelledImage
    from models.runtime.bundle import Bundle
    from models.runtime.cascade_fit import Cost, Scored
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
    added_escape: Annotated[float, typer.Option(min=0, max=1, help="Most added escapes, as a share of defects.")],
    added_overkill: Annotated[float, typer.Option(min=0, max=1, help="Most added overkill, of good parts.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the split into two halves.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Pick the least escalation whose added risk stays within the limits (95 %), or say that none does (exit 4).

    Cuts are picked on one half of the images (whole groups together) and judged on the other.
    """
    from models.runtime.cascade_fit import RiskLimits, contradicted, cost, curve, least_images, pick

    first, second = _model(gate), _model(big)
    _same_classes(first, second)
    halves = [_score(first, second, images) for images in _halves(data, second, seed)]
    fit, judge = halves
    call_at, limits = first.thresholds.call_at, RiskLimits(added_escape, added_overkill)
    cuts = pick(fit, limits, call_at=call_at).model_copy(update={"calibrated_against": second.manifest_sha})
    picked, judged = cost(fit, cuts), cost(judge, cuts)
    none = cuts.certain_pass_below is None and cuts.certain_reject_above is None
    document = {
        "schema": 1, "ok": not none and not contradicted(judged, limits), "limits": asdict(limits), "seed": seed,
        "gate": first.manifest_sha, "big": second.manifest_sha, "call_at": call_at,
        "gate_pretrained": first.base.manifest.pretrained, "big_pretrained": second.base.manifest.pretrained,
        "cuts": cuts.model_dump(mode="json", exclude_none=True),
        "picked_on": _plain(picked), "judged_on": _plain(judged),
        "curve": [_plain(row) for row in curve(fit, judge, call_at=call_at, shares=CURVE)],
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, sort_keys=True, indent=1), encoding="utf-8")
    print(json.dumps(document, sort_keys=True) if as_json else _text(document))
    if none:
        need = (least_images(added_escape), least_images(added_overkill))
        have = (picked.defects, picked.images - picked.defects)
        fail(
            f"no escalation below 100 % meets the limits: with no fault at all they need {need[0]} defects and "
            f"{need[1]} good parts to pick on, there are {have[0]} and {have[1]}; give more images, a better gate or "
            "wider limits",
            NONE_MEETS,
        )
    if not document["ok"]:
        fail("the other half of the images rules the limits out; the cuts must not be used", NONE_MEETS)


@cascade.command()
def apply(
    gate: Gate,
    *,
    cuts: Annotated[Path, typer.Option(help="The file calibrate wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for the gate with its cuts; must not exist.")],
    release: Annotated[int | None, typer.Option(min=1, help="Its number; the gate's own if not given.")] = None,
) -> None:
    """Write the gate again with the cuts in its manifest: once published they travel signed, like thresholds."""
    import shutil

    from models.contracts.base import Malformed, parse_as, parse_json
    from models.contracts.model_manifest import AdapterManifest, CascadeCuts

    if out.exists():
        fail(f"{out} exists already: choose another --out", 2)
    bundle = _bundle(gate)
    try:
        document = parse_json(cuts.read_bytes())
        found = parse_as(CascadeCuts, document["cuts"])
        if not document["ok"]:
            fail(f"{cuts} says that no cuts meet the limits: nothing was written", NONE_MEETS)
        if document["gate"] != bundle.adapter.digest():
            fail(f"{cuts} was calibrated for another gate: calibrate this one", 2)
        fields = bundle.adapter.model_dump(mode="json", exclude_none=True)
        changed = parse_as(
            AdapterManifest,
            fields | _numbered(bundle, release) | {"cascade": found.model_dump(mode="json", exclude_none=True)},
        )
    except OSError as fault:
        fail(f"{cuts}: {fault.strerror or fault}", 2)
    except (Malformed, KeyError, TypeError) as fault:
        fail(f"{cuts} is not what calibrate writes: {fault}", 2)
    shutil.copytree(gate, out, ignore=shutil.ignore_patterns("complete", "adapter.json"))
    (out / "adapter.json").write_bytes(changed.encode())
    (out / "complete").touch()
    print(f"{out}: release {changed.release} of line {changed.line} with cascade cuts, {changed.digest()[:12]}")


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

    if escalation + audit > 1:
        fail("--escalation and --audit together are more than all parts", 2)
    images = _images(data)
    wish = Wish(parts=parts, escalation=escalation, audit=audit, threads=threads)
    found = measure(_bundle(gate), big, [image.data for image in images], wish, say=say)
    document = {"schema": 1, "ok": passes(found), **asdict(found), "target": found.target, "speedup": found.speedup}
    print(json.dumps(document, sort_keys=True) if as_json else _bench_text(document))
    raise typer.Exit(0 if document["ok"] else 1)


def _bench_text(d: dict[str, Any]) -> str:
    return (
        f"{d['parts']} parts, {d['threads']} threads; gate {d['gate_ms']:.1f} ms a part ({d['gate_pretrained']})\n"
        f"big model alone {d['big_ms']:.0f} ms a part ({d['big_pretrained']})\n"
        f"escalated {d['escalated']} ({d['escalated'] / d['parts']:.1%}), audited {d['audited']} "
        f"({d['audited'] / d['parts']:.1%})\n"
        f"cascade {d['cascade_s']:.1f} s, {d['parts'] / d['cascade_s']:.2f} parts/s: {d['speedup']:.2f} times the big "
        f"model alone; at least {d['target']:.2f} = 0.8 / (t_gate/t_big + escalation + audit) wanted: "
        f"{'reached' if d['ok'] else 'MISSED'}"
    )


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


def _halves(data: Path, model: LineModel, seed: int) -> tuple[list[LabelledImage], list[LabelledImage]]:
    from models.nn.starting import CannotTrain, split

    images = _images(data)
    known = {spec.name for spec in model.head.classes}
    if strange := sorted({image.label for image in images} - known):
        fail(f"the label {strange[0]!r} is no class of the big model; it has: {', '.join(sorted(known))}", 2)
    kinds = {next(s.defect for s in model.head.classes if s.name == image.label) for image in images}
    if len(kinds) < 2:
        fail(f"{data} needs good and defective images", 2)
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


def _text(document: dict[str, Any]) -> str:
    """A table: the curve, then the picked cuts on both halves."""
    head = "| escalated | added escape (95 %) | saved | added overkill (95 %) | saved | escape | overkill |"
    rows = [_row(row, "") for row in document["curve"]]
    cuts, limits = document["cuts"], document["limits"]
    below, above = (cuts.get(name, "never") for name in ("certain_pass_below", "certain_reject_above"))
    return "\n".join([
        head, "|---|---|---|---|---|---|---|", *rows, "",
        f"limits: added escape {limits['added_escape']:.2%}, added overkill {limits['added_overkill']:.2%}",
        f"passes below {below}, rejects from {above}",
        head, "|---|---|---|---|---|---|---|",
        _row(document["picked_on"], " (picked on)"), _row(document["judged_on"], " (judged on)"),
    ])  # fmt: skip


def _row(row: dict[str, Any], what: str) -> str:
    def share(of: dict[str, float]) -> str:
        return f"{of['rate']:.2%} ({of['low']:.2%} to {of['high']:.2%})"

    return (
        f"| {row['escalation']:.1%}{what} | {share(row['added_escape'])} | {row['saved_escapes']} | "
        f"{share(row['added_overkill'])} | {row['saved_overkills']} | {row['escape']['rate']:.2%} | "
        f"{row['overkill']['rate']:.2%} |"
    )
