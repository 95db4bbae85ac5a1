"""`edgeloop models build`, `bench` and `doctor`: bases, how fast they are, and the processor they would run on."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from models.terminal import NAME, AsJson, check_out, fail, numbers, read_prompt, say, whole


def build(
    *,
    out: Annotated[Path, typer.Option(help="Folder for the base; must not exist.")],
    preset: Annotated[str, typer.Option(help="Size of the model.")] = "1.7b",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Published DeepSeek-VL directory; random weights without it.")
    ] = None,
    prompt: Annotated[Path | None, typer.Option(help="UTF-8 text with <image> where the picture goes.")] = None,
    image_tokens: Annotated[
        int | None, typer.Option(help="Image tokens per frame; the preset's when left out.")
    ] = None,
    expert_bits: Annotated[
        int | None, typer.Option(help="4 or 8 bits per weight of a routed expert; the preset's when left out.")
    ] = None,
    family: Annotated[str, typer.Option(help="The base's name; the preset's when left out.")] = "",
    version: Annotated[int, typer.Option(min=1, help="Grows with every base of the family.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of random weights.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Build a base: fold the prompt, export both graphs, quantize, compare with torch. No line and no training yet."""
    from models.nn.build import BadBuild, Source
    from models.nn.build import build as made_of
    from models.nn.config import preset as named
    from models.nn.config import with_expert_bits, with_image_tokens
    from models.nn.prompt import DEFAULT_PROMPT, BadPrompt
    from models.nn.published import BadPublished

    check_out(out)
    name = family or preset.replace(".", "-")
    if not re.fullmatch(NAME, name):
        fail(f"--family {name!r}: write lower-case letters, digits and hyphens, at most 52", 2)
    if prompt is not None and checkpoint is None:
        fail("--prompt needs --checkpoint: random weights have no tokens", 2)
    try:
        config = named(preset)
        config = config if image_tokens is None else with_image_tokens(config, image_tokens)
        config = config if expert_bits is None else with_expert_bits(config, expert_bits)
        source = None if checkpoint is None else Source(checkpoint, read_prompt(prompt, DEFAULT_PROMPT))
        made = made_of(
            config, source=source, family=name, version=version, seed=seed, now=datetime.now(UTC),
            say=say,
        )  # fmt: skip
        _keep_base(out, made, tokenizer=None if checkpoint is None else checkpoint / "tokenizer.json")
    except (BadPublished, BadPrompt, BadBuild) as fault:
        fail(f"{fault}; nothing was written")
    except OSError as fault:
        fail(f"{fault.filename or out}: {fault.strerror or fault}")
    except ValueError as fault:
        fail(str(fault), 2)
    document = {"schema": 1, "out": str(out), "base": made.base.manifest.digest(), **made.report}
    text = "\n".join(f"{key}: {value}" for key, value in document.items() if key != "schema")
    print(json.dumps(document, sort_keys=True) if as_json else text)


def _keep_base(out: Path, made: Any, *, tokenizer: Path | None) -> None:
    """Everything into a folder beside `out`, which takes its name when it is whole."""
    import shutil

    from models.nn.build import PRECISION
    from models.nn.checkpoint import LANGUAGE_HEAD, write_checkpoint, write_language_head
    from models.runtime.bundle import CHECKPOINT, write_base

    with whole(out) as part:
        made.base.write(part / "files")
        write_checkpoint(made.model, part / CHECKPOINT, dtype=PRECISION)
        if made.head is not None:
            write_language_head(made.head, part / LANGUAGE_HEAD, dtype=PRECISION)
        if tokenizer is not None:
            shutil.copyfile(tokenizer, part / tokenizer.name)
        (part / "build.json").write_text(json.dumps(made.report, sort_keys=True), encoding="utf-8")
        write_base(part, made.base.manifest)


def bench(
    folder: Annotated[Path, typer.Argument(help="A folder made by build or train.")],
    *,
    ctx: typer.Context,
    threads: Annotated[str, typer.Option(help="Numbers of threads, separated by commas.")] = "",
    batch: Annotated[str, typer.Option(help="Frames at once, separated by commas.")] = "1",
    calls: Annotated[int, typer.Option(min=1, help="Timed calls of each measurement.")] = 10,
    swaps: Annotated[int, typer.Option(min=0, help="Adapters exchanged under load; 0 leaves it out.")] = 1000,
    layers: Annotated[int, typer.Option(min=0, help="Trunk layers that peers run; 0 leaves peers out.")] = 6,
    against: Annotated[
        Path | None, typer.Option(help="Only compare with this other base, call by call in turn.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a base on this machine, beside other runtimes and quantizers in the same run."""
    from models.nn.bench.run import Wish, run_bench
    from models.nn.bench.table import text
    from models.nn.checkpoint import BadCheckpoint
    from models.runtime.bundle import BadBundle, is_complete

    if not is_complete(folder):
        fail(f"{folder} holds no finished model: give a folder that edgeloop models build or train made", 2)
    cores, batches = numbers(threads, "--threads", empty=True), numbers(batch, "--batch")
    if against is not None:
        for name in ("batch", "swaps", "layers"):
            source = ctx.get_parameter_source(name)
            if source is not None and source.name == "COMMANDLINE":
                fail(f"--{name} is not measured with --against: leave it out, or measure each base alone", 2)
        _bench_against(folder, against, cores, calls=calls, as_json=as_json)
        return
    wish = Wish(threads=cores, batches=batches, calls=calls, swaps=swaps, layers=layers)
    try:
        found = run_bench(folder, wish, say=say)
    except (BadBundle, BadCheckpoint, RuntimeError) as fault:
        fail(str(fault))
    except OSError as fault:
        fail(f"{fault.filename or folder}: {fault.strerror or fault}")
    print(json.dumps(found.document(), sort_keys=True) if as_json else text(found))


def _bench_against(folder: Path, other: Path, threads: tuple[int, ...], *, calls: int, as_json: bool) -> None:
    """Both bases in turns under each number of threads; one, and all there are, when none was named."""
    from models.nn.bench.against import check_alike, measure_against, text
    from models.nn.bench.child import in_child
    from models.nn.bench.ours import Frozen
    from models.nn.bench.run import machine
    from models.nn.bench.table import known
    from models.runtime.bundle import BadBundle, is_complete, read_base

    if not is_complete(other):
        fail(f"{other} holds no finished model: give --against a folder that edgeloop models build or train made", 2)
    try:
        pair = Frozen(*read_base(folder)), Frozen(*read_base(other))
        check_alike(*pair)
        here, found = machine(), []
        for count in threads or sorted({1, here.cores}):
            say(f"{count} threads, {calls} calls in turn")
            found.append(in_child(measure_against, *pair, count, calls))
    except (BadBundle, RuntimeError) as fault:
        fail(str(fault))
    except ValueError as fault:
        fail(str(fault), 2)
    if as_json:
        rows = [known(one.document()) for one in found]
        print(json.dumps({"schema": 1, "machine": asdict(here), "rows": rows}, sort_keys=True))
    else:
        print("\n\n".join([here.text(), *(text(one) for one in found)]))


def doctor(as_json: AsJson = False) -> None:
    """Which int8 kernels this processor has, and whether W8A8 bases are exact on it; exit 1 if they are not."""
    from models.runtime.cpu import read_processor

    found = read_processor()
    if as_json:
        print(json.dumps({"schema": 1, "ok": found.int8 != "saturates", "advice": found.advice, **asdict(found)}))
    else:
        print(f"{found.name} ({found.machine}), {found.cores} cores")
        print(f"int8 kernels: {', '.join(found.kernels) or 'none known'}")
        print(found.advice)
    raise typer.Exit(1 if found.int8 == "saturates" else 0)
