"""`edgeloop models rehearse`: a model's whole life once, at full size, as one table."""

from __future__ import annotations

import json
import math
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from models.images_cli import CANNOT_TRAIN, GOOD_NAMES, named_classes, names, read_images
from models.terminal import AsJson, check_out, fail, numbers, read_prompt, say, whole

if TYPE_CHECKING:
    from models.nn.rehearsal import Judged, Plan, Rehearsed

PARITY_SAID = {
    "float32": "float32 graph against torch", "int8": "int8 graph against torch",
}  # fmt: skip


def rehearse(
    *,
    data: Annotated[
        Path, typer.Option(help="Images as for train; labels.csv names two products in its column domain.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the base's files; must not exist.")],
    preset: Annotated[str, typer.Option(help="Size of the model.")] = "1.7b",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Published DeepSeek-VL directory; random weights without it.")
    ] = None,
    prompt: Annotated[Path | None, typer.Option(help="UTF-8 text with <image> where the picture goes.")] = None,
    image_tokens: Annotated[
        int | None, typer.Option(help="Image tokens per frame; the preset's when left out.")
    ] = None,
    good: Annotated[str, typer.Option(help="Classes that are good; every other one is a defect.")] = GOOD_NAMES,
    classes: Annotated[str, typer.Option(help="Only these classes, separated by commas; all when left out.")] = "",
    known: Annotated[str | None, typer.Option(help="The product the line starts with; the other one is new.")] = None,
    device: Annotated[str, typer.Option(help="Where it learns: auto, cpu, cuda or cuda:NUMBER.")] = "auto",
    images: Annotated[int, typer.Option(min=20, help="Images of each set at most.")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the lesson.")] = 40,
    batch: Annotated[int, typer.Option(min=2, help="Images of each step of the lesson.")] = 64,
    batches: Annotated[str, typer.Option(help="Batch sizes whose training speed is measured.")] = "16,32,64",
    compiled: Annotated[bool, typer.Option(help="Measure training with compiled layers too.")] = False,
    swaps: Annotated[int, typer.Option(min=0, help="Adapters exchanged under load; 0 leaves it out.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of random weights, sets and training.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Build, train, quantize, compare, swap and judge a model once on this machine, and print what was measured."""
    from models.nn.build import BadBuild, Source
    from models.nn.config import preset as named
    from models.nn.config import with_image_tokens
    from models.nn.device import NoDevice
    from models.nn.prompt import DEFAULT_PROMPT, BadPrompt
    from models.nn.published import BadPublished
    from models.nn.rehearsal import Plan, Rehearsal, divide
    from models.nn.starting import CannotTrain
    from models.runtime.cpu import physical_cores

    check_out(out)
    if prompt is not None and checkpoint is None:
        fail("--prompt needs --checkpoint: random weights have no tokens", 2)
    wanted = names(classes)
    given = [image for image in read_images(data) if not wanted or image.label in wanted]
    specs = named_classes(given, good=names(good), must_catch=set(), also=set())
    try:
        config = named(preset)
        config = config if image_tokens is None else with_image_tokens(config, image_tokens)
        source = None if checkpoint is None else Source(checkpoint, read_prompt(prompt, DEFAULT_PROMPT))
        plan = Plan(
            config, source, device=device, threads=physical_cores(),
            images=images, steps=steps, batch=batch, batches=numbers(batches, "--batches"),
            compiled=(False, True) if compiled else (False,), swaps=swaps, seed=seed,
        )  # fmt: skip
        sets = divide(given, limit=images, known=known, seed=seed)
        with whole(out) as part:
            found = Rehearsal(plan, sets, specs, part, now=datetime.now(UTC), say=say).run()
    except CannotTrain as fault:
        fail(str(fault), CANNOT_TRAIN)
    except (BadPublished, BadPrompt, BadBuild) as fault:
        fail(f"{fault}; nothing was written")
    except OSError as fault:
        fail(f"{fault.filename or out}: {fault.strerror or fault}")
    except (NoDevice, ValueError) as fault:
        fail(str(fault), 2)
    print(json.dumps(_document(found, plan), sort_keys=True) if as_json else _text(found, plan))


def _machine() -> str:
    from models.runtime.cpu import read_processor

    processor = read_processor()
    programs = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "onnxruntime"))
    kernels = ", ".join(processor.kernels)
    return f"{processor.name}, {processor.cores} cores, {kernels}; Python {platform.python_version()}, {programs}"


def _document(found: Rehearsed, plan: Plan) -> dict[str, Any]:
    from dataclasses import asdict

    from models.nn.bench.table import known

    return {
        "schema": 1, "machine": _machine(), "preset": plan.config.name,
        "image_tokens": plan.config.tower.tokens, "seed": plan.seed, **known(asdict(found)),
    }  # fmt: skip


def _text(found: Rehearsed, plan: Plan) -> str:
    """Markdown, so that it can be kept as it is printed."""
    lesson, old, new = found.lesson, *found.products
    size, tokens = f"{found.parameters / 1e9:.3f} B parameters", plan.config.tower.tokens
    lines = [
        f"{plan.config.name}, {size}, {tokens} image tokens, weights: {found.pretrained}; seed {plan.seed}",
        f"{_machine()}; learning on {found.device}, {found.gemm_tflops:.0f} TFLOP/s in one bfloat16 product",
        "", "| step | seconds |", "|---|---|",
        *(f"| {name} | {seconds:.1f} |" for name, seconds in found.seconds.items()),
        f"| all | {sum(found.seconds.values()):.1f} |",
        "", "| LoRA training | batch | images/s | ms a step | TFLOP/s | of one product | memory GB | ready s |",
        "|---|---|---|---|---|---|---|---|", *(_speed_line(row, found.gemm_tflops) for row in found.speed),
        "", f"Lesson: {int(lesson['labels'])} labels of {new}, {int(lesson['steps'])} steps of {plan.batch}; loss "
        f"{lesson['loss_first']:.3f} to {lesson['loss_last']:.3f}; release of {lesson['bytes'] / 1e6:.1f} MB.",
        "", "| compared | decisions agree | largest probability difference | mean | embedding |",
        "|---|---|---|---|---|",
        *(
            f"| {PARITY_SAID[name]} | {row.agreement:.1%} | {row.max_probability:.5f} | {row.mean_probability:.5f} | "
            f"{row.embedding:.3%} |" for name, row in found.parity.items()
        ),
        f"| shipped files with adapter against torch | {lesson['parity_agreement']:.1%} | {lesson['parity']:.5f} | | "
        f"{lesson['parity_embedding']:.3%} |",
    ]  # fmt: skip
    if found.swaps is not None:
        one = found.swaps
        lines += ["", f"{one.swaps} swaps under {one.threads} threads: {one.frames} frames, {one.wrong} wrong, longest "
                  f"{one.longest_ms:.3f} ms."]  # fmt: skip
    lines += ["", "| release | product | images | balanced accuracy | AUROC | loss |", "|---|---|---|---|---|---|"]
    lines += [_judged_line(name, product, one) for name, row in found.judged.items() for product, one in row.items()]
    lost = found.judged["after"][old].balanced_accuracy - found.judged["before"][old].balanced_accuracy
    lines += ["", f"On {old}, which the line knew, the lesson changed balanced accuracy by {100 * lost:+.1f} points."]
    return "\n".join(lines)


def _speed_line(row: Any, ceiling: float) -> str:
    kind = "compiled layers" if row.compiled else "plain"
    if row.note:
        return f"| {kind} | {row.batch} | {row.note} | | | | | |"
    memory = "-" if math.isnan(row.peak_gb) else f"{row.peak_gb:.1f}"
    return (
        f"| {kind} | {row.batch} | {row.images_per_s:.0f} | {row.step_ms:.0f} | {row.tflops:.0f} | "
        f"{row.tflops / ceiling:.0%} | {memory} | {row.ready_s:.1f} |"
    )


def _judged_line(name: str, product: str, one: Judged) -> str:
    return f"| {name} | {product} | {one.images} | {one.balanced_accuracy:.1%} | {one.auroc:.3f} | {one.loss:.3f} |"
