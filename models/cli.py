"""`edgeloop models`: train a line's first model from a folder of images, look at one, and check torch against ONNX.

Exit codes: 0 ok, 1 error, 2 usage, 4 the images do not allow a model that could be trusted.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from models.base_cli import bench, build, doctor
from models.cascade_cli import cascade
from models.explain_cli import explain
from models.images_cli import CANNOT_TRAIN, GOOD_NAMES, named_classes, names, read_images, read_roi
from models.rehearse_cli import rehearse
from models.terminal import NAME, AsJson, fail, say

if TYPE_CHECKING:
    from models.contracts.model_manifest import BaseManifest, ClassSpec
    from models.nn.starting import LabelledImage
    from models.runtime.bundle import Bundle

app = typer.Typer(no_args_is_help=True, help="Build, train and check models.", pretty_exceptions_enable=False)
GRAPH_TOLERANCE = 1e-3
"""Of a class probability between torch and the same graph in float32: anything beyond is a fault of the export."""


@app.command()
def train(
    *,
    line: Annotated[str, typer.Option(help="The line's name, as in edgeloop cloud line create.")],
    data: Annotated[Path, typer.Option(help="Folder with one folder of images per class; labels.csv is optional.")],
    out: Annotated[Path, typer.Option(help="Folder for the model; must not hold one already.")],
    good: Annotated[str, typer.Option(help="Classes that are good; every other folder is a defect.")] = GOOD_NAMES,
    must_catch: Annotated[str, typer.Option(help="Defect classes that no update may newly miss.")] = "",
    preset: Annotated[str, typer.Option(help="Size of a base that is trained here.")] = "nano",
    base: Annotated[Path | None, typer.Option(help="Use this base from build as it is; only a head is fitted.")] = None,
    also: Annotated[str, typer.Option(help="Defect classes without images yet, by their words; needs --base.")] = "",
    hold_out: Annotated[float, typer.Option(min=0.1, max=0.5, help="Share kept for calibration.")] = 0.25,
    release: Annotated[int, typer.Option(min=1, help="The release's number; line publish says which is next.")] = 1,
    roi: Annotated[
        str, typer.Option(help="The part of the frame to look at: x,y,width,height, each a share from 0 to 1.")
    ] = "",
    flips: Annotated[bool, typer.Option(help="Mirrored parts are as valid; --no-flips where they are not.")] = True,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Train a line's first model: a frozen base and an adapter release, with a report; or say what is missing."""
    from models.nn.checkpoint import BadCheckpoint
    from models.nn.prompt import BadPrompt
    from models.nn.starting import CannotTrain, StartingSettings, check_preset, split
    from models.runtime.bundle import is_complete

    if not re.fullmatch(NAME, line):
        fail(f"--line {line!r}: write lower-case letters, digits and hyphens, at most 52", 2)
    try:
        check_preset(preset)
    except ValueError as fault:
        fail(f"--preset: {fault}", 2)
    region = read_roi(roi)
    if also and base is None:
        fail("--also needs --base: only a base with a tokenizer knows words", 2)
    if is_complete(out):
        fail(f"{out} holds a model already: choose another --out", CANNOT_TRAIN)
    images = read_images(data)
    classes = named_classes(images, good=names(good), must_catch=names(must_catch), also=names(also))
    if base is not None and also:
        _refuse_words(base, names(also), have={image.label for image in images}, good=names(good))
    try:
        settings = StartingSettings(
            preset=preset, family=f"{line}-{preset}", version=release, number=release, flips=flips, roi=region
        )  # fmt: skip
        learn, held = split(images, share=hold_out, seed=seed)
        task = {"validation": held, "line": line, "classes": classes, "settings": settings, "seed": seed,
                "now": datetime.now(UTC), "say": say}  # fmt: skip
        bundle = _trained(out, learn, task) if base is None else _fitted(base, learn, task)
    except (CannotTrain, BadCheckpoint, BadPrompt) as fault:
        fail(f"cannot train line {line}: {fault}", CANNOT_TRAIN)
    except ValueError as fault:
        fail(str(fault), 2)
    _write(out, bundle, gate=held, memory=learn)
    shown = [c for c in classes if f"recall_{c.name}" in bundle.metrics]
    report = _report(line, bundle.base.preset, dict(bundle.metrics), shown, trained=len(learn))
    (out / "report.md").write_text(report, encoding="utf-8")
    document = {"schema": 1, "line": line, "out": str(out), "metrics": dict(bundle.metrics)}
    print(json.dumps(document, sort_keys=True) if as_json else report)


def _trained(out: Path, images: list[LabelledImage], task: dict[str, Any]) -> Bundle:
    """A base of the line's own."""
    from models.nn.starting import build_starting
    from models.runtime.bundle import Bundle

    made = build_starting(images, **task)
    files, release = made.base.write(out / "files"), made.release
    return Bundle(made.base.manifest, files, made.checkpoint, release.manifest, release.blobs, made.report)


def _fitted(folder: Path, images: list[LabelledImage], task: dict[str, Any]) -> Bundle:
    """A release on a base that `build` made."""
    from models.nn.checkpoint import load_checkpoint
    from models.nn.first import Ground, first_release
    from models.runtime.base import SessionLimits
    from models.runtime.bundle import CHECKPOINT, Bundle, language_files, open_base
    from models.runtime.cpu import physical_cores
    from models.runtime.golden import read_golden

    if not _is_base(folder):
        fail(f"--base {folder}: give a folder that edgeloop models build made (its --out)", 2)
    base, files = _read_base(folder)
    model = load_checkpoint(folder / CHECKPOINT)
    golden = read_golden(files[base.file("golden").name].read_bytes())
    words = _words(folder, model, [spec.name for spec in task["classes"]])
    limits = SessionLimits(threads=physical_cores())
    ground = Ground(open_base(base, files, limits=limits), model, golden, words)
    packed, facts = first_release(ground, images, **task)
    checkpoint, language = (folder / CHECKPOINT).read_bytes(), language_files(folder)
    return Bundle(base, files, checkpoint, packed.manifest, packed.blobs, facts, language)


def _refuse_words(folder: Path, also: set[str], *, have: set[str], good: set[str]) -> None:
    """Classes by their words alone are defects without images, on a base that knows words."""
    from models.nn.prompt import TOKENIZER

    if not (folder / TOKENIZER).is_file():
        fail(f"--also: {folder} knows no words: it was built without a checkpoint's tokenizer", CANNOT_TRAIN)
    if shown := sorted(also & have):
        fail(f"--also {shown[0]}: this class has images already, leave it out", 2)
    if wrong := sorted(also & good):
        fail(f"--also {wrong[0]}: it is among the good classes, and good parts are never known by a word alone", 2)


def _words(folder: Path, model: Any, names: list[str]) -> Any:
    """First rows of the class head from the base's own language head; None where it came without a tokenizer."""
    from models.nn.checkpoint import language_head
    from models.nn.prompt import TOKENIZER, class_rows, read_tokenizer

    if not (folder / TOKENIZER).is_file():
        return None
    return class_rows(read_tokenizer(folder), language_head(folder, model), names)


def _write(out: Path, bundle: Bundle, *, gate: list[LabelledImage], memory: list[LabelledImage]) -> None:
    """The model as a bundle, the held-out images that will judge every later release, and those to be replayed."""
    from models.runtime.bundle import write_starting

    _write_images(out / "gate", gate)
    _write_images(out / "memory", memory)
    write_starting(out, bundle)


def _write_images(folder: Path, images: list[LabelledImage]) -> None:
    """As `edgeloop cloud line import` reads them."""
    import csv

    from models.contracts.base import sha256_hex

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "label", "domain", "group"))
        for image in images:
            name = f"{image.label}/{sha256_hex(image.data)[:16]}.{_suffix(image.data)}"
            (folder / image.label).mkdir(exist_ok=True)
            (folder / name).write_bytes(image.data)
            table.writerow((name, image.label, image.domain or "", image.group or ""))


def _suffix(data: bytes) -> str:
    from models.runtime.image import read_header

    return read_header(data).type.removeprefix("image/")


def _report(line: str, preset: str, report: dict[str, float], classes: list[ClassSpec], *, trained: int) -> str:
    """What a person reads before installing."""
    from models.nn.starting import certifiable

    rows = [
        f"| {c.name} | {'defect' if c.defect else 'good'} | {report[f'recall_{c.name}']:.1%} |"
        f" {int(report[f'images_{c.name}'])} |"
        for c in classes
    ]
    defects = sum(int(report[f"images_{c.name}"]) for c in classes if c.defect)
    missed = int(report["missed"])
    lines = [
        f"# Line {line}, first model ({preset})", "",
        f"Trained on {trained} images, judged on {int(report['validation_images'])} it has not seen: accuracy "
        f"{report['accuracy']:.1%}, balanced accuracy {report['balanced_accuracy']:.1%}.", "",
        "| class | kind | recognised | judged on |", "|---|---|---|---|", *rows, "",
        certifiable(missed=missed, defects=defects), "",
        f"Torch and the exported int8 files agree on {report['parity_agreement']:.1%} of frames "
        f"(largest difference of a probability {report['parity']:.4f}). A release has "
        f"{report['release_bytes'] / 1e3:.0f} kB.", "",
        "Thresholds were set on the same held-out images, so these figures lean to the good side; accuracy in the "
        "field is measured by the dashboard from random samples.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _open(folder: Path) -> Bundle:
    from models.runtime.bundle import BadBundle, is_complete, read_starting

    wanted = "give a folder that edgeloop models train made (its --out)"
    if not folder.exists():
        fail(f"{folder} does not exist: {wanted}")
    if not folder.is_dir():
        fail(f"{folder} is a file: {wanted}")
    if not is_complete(folder):
        fail(f"{folder} holds no finished model: {wanted}")
    if _is_base(folder):
        fail(f"{folder} holds a base without a release: {wanted}")
    try:
        return read_starting(folder)
    except BadBundle as fault:
        fail(str(fault))


def _is_base(folder: Path) -> bool:
    """Whether `build` made it: a base without a release."""
    from models.runtime.bundle import is_complete

    return is_complete(folder) and not (folder / "adapter.json").exists()


def _read_base(folder: Path) -> tuple[BaseManifest, dict[str, Path]]:
    from models.runtime.bundle import BadBundle, read_base

    try:
        return read_base(folder)
    except BadBundle as fault:
        fail(str(fault))


def _base_facts(base: BaseManifest) -> dict[str, Any]:
    return {
        "family": base.family, "version": base.version, "sha256": base.digest(), "preset": base.preset,
        "parameters": base.parameters, "pretrained": base.pretrained, "licence": base.licence,
        "image_tokens": base.grid[0] * base.grid[1], "quantization": base.quantization,
        "bytes": sum(file.length for file in base.files),
    }  # fmt: skip


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="A folder made by train or build.")], as_json: AsJson = False
) -> None:
    """What a model is: sizes, digests, classes, thresholds; of a base that has no line yet, the base."""
    document: dict[str, Any] = {"schema": 1}
    if _is_base(folder):
        document["base"] = _base_facts(_read_base(folder)[0])
    else:
        bundle = _open(folder)
        adapter = bundle.adapter
        document["base"] = _base_facts(bundle.base)
        document["release"] = {
            "line": adapter.line, "release": adapter.release, "sha256": adapter.digest(),
            "classes": [c.name for c in adapter.head.classes],
            "roi": None if adapter.roi is None else list(adapter.roi),
            "thresholds": adapter.thresholds.model_dump(mode="json"),
            "bytes": sum(blob.length for blob in adapter.blobs()),
        }  # fmt: skip
    if as_json:
        print(json.dumps(document, sort_keys=True))
        return
    for name, part in document.items():
        if isinstance(part, dict):
            print(name)
            for key, value in part.items():
                print(f"  {key}: {'whole frame' if key == 'roi' and value is None else value}")


@app.command()
def parity(
    folder: Annotated[Path, typer.Argument(help="A folder made by train.")],
    *,
    data: Annotated[Path, typer.Option(help="Images, as for train.")],
    frames: Annotated[int, typer.Option(min=1, help="How many images.")] = 64,
    tolerance: Annotated[float, typer.Option(min=0, help="Largest probability difference allowed.")] = 0.05,
    layers: Annotated[int, typer.Option(min=0, help="Show the linears that int8 hurts most; takes a while.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare torch with the float32 graph, the int8 graph and the shipped files on real frames; exit 1 beyond it."""
    from dataclasses import asdict

    import numpy as np

    from models.nn.checkpoint import BadCheckpoint, load_checkpoint
    from models.nn.examples import frame_tokens
    from models.nn.parity import compare, compare_exports
    from models.nn.sensitivity import sensitivity
    from models.nn.starting import CannotTrain, decoded
    from models.runtime.adapter import read_adapter
    from models.runtime.bundle import CHECKPOINT

    bundle = _open(folder)
    model = bundle.model()
    images = read_images(data)[:frames]
    if not images:
        fail(f"{data} has no images", 2)
    try:
        trained = load_checkpoint(folder / CHECKPOINT)
        tokens = np.stack([frame_tokens(model.base, p, flips=False)[0] for p in decoded(images)])
    except BadCheckpoint as fault:
        fail(f"{folder}: {fault}: train it again")
    except CannotTrain as fault:
        fail(str(fault), 2)
    adapter = bundle.adapter.adapter
    lora = None if adapter is None else read_adapter(bundle.blobs[adapter.blob.sha256], bundle.base.lora)
    rows = compare_exports(trained, model.head, tokens)
    rows["shipped"] = compare(model.base, trained, model.head, tokens, lora=lora, feeds=model.lora)
    worst = sensitivity(trained, tokens)[:layers] if layers else []
    ok = rows["shipped"].max_probability <= tolerance and rows["float32"].max_probability <= GRAPH_TOLERANCE
    document = {
        "schema": 1, "ok": ok, "tolerance": tolerance, "graph_tolerance": GRAPH_TOLERANCE, "frames": len(tokens),
        "rows": {name: asdict(row) for name, row in rows.items()}, "layers": [asdict(one) for one in worst],
    }  # fmt: skip
    print(json.dumps(document, sort_keys=True) if as_json else _parity_text(document))
    raise typer.Exit(0 if ok else 1)


def _parity_text(document: dict[str, Any]) -> str:
    """One line per comparison, then the linears int8 hurts most."""
    said = {
        "float32": "float32 graph against torch", "int8": "int8 graph against torch",
        "shipped": "shipped files against torch with their weights and adapter",
    }  # fmt: skip
    lines = [f"{document['frames']} frames"]
    for name, row in document["rows"].items():
        lines.append(
            f"{said[name]}: decisions agree {row['agreement']:.1%}, largest probability difference "
            f"{row['max_probability']:.5f}, mean {row['mean_probability']:.5f}, embedding {row['embedding']:.3%}"
        )
    lines += [f"  {one['group']}: embedding {one['error']:.3%} when it alone is int8" for one in document["layers"]]
    verdict = "within" if document["ok"] else "BEYOND"
    shipped, graph = document["tolerance"], document["graph_tolerance"]
    lines.append(f"{verdict} the tolerances: {shipped:g} for the shipped files, {graph:g} for the float32 graph")
    return "\n".join(lines)


app.command()(build)
app.command()(bench)
app.command()(doctor)
app.command()(explain)
app.command()(rehearse)
app.add_typer(cascade, name="cascade")
