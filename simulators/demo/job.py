"""``python -m simulators.demo.job REQUEST``: trains one model outside the loop and writes it as a bundle.

The starting model goes through the code of `edgeloop models train`; the joint reference through the trainer's, with
every label of the stream instead of the few a reviewer gave. Only this process loads torch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from models.contracts.model_manifest import ClassSpec, Lineage
from models.runtime.bundle import CHECKPOINT, Bundle, read_starting, write_adapter, write_starting
from simulators.demo.scenario import CLASSES, DEFECTIVE, ESCAPE_COST, OVERKILL_COST

SPECS = [ClassSpec(name=name, defect=name == DEFECTIVE) for name in CLASSES]


def main(arguments: Sequence[str]) -> int:
    """Train what the request file asks for."""
    request = json.loads(Path(arguments[0]).read_text())
    (_starting if request["kind"] == "starting" else _joint)(request)
    return 0


def _images(rows: Sequence[Mapping[str, str]]) -> list[Any]:
    from models.nn.starting import LabelledImage

    return [
        LabelledImage(data=Path(row["path"]).read_bytes(), label=row["label"], domain=row["domain"], group=row["group"])
        for row in rows
    ]


def _starting(request: Mapping[str, Any]) -> None:
    from models.nn.starting import StartingSettings, build_starting

    made = build_starting(
        _images(request["images"]),
        validation=_images(request["validation"]),
        line=request["line"],
        classes=SPECS,
        settings=StartingSettings(preset=request["preset"], family=request["preset"], costs=_costs()),
        seed=request["seed"],
        now=datetime.now(UTC),
        say=print,
    )
    out = Path(request["out"])
    (out / "files").mkdir(exist_ok=True)
    files = {name: out / "files" / name for name in made.base.files}
    for name, path in files.items():
        path.write_bytes(made.base.files[name])
    manifest, release = made.base.manifest, made.release
    write_starting(out, Bundle(manifest, files, made.checkpoint, release.manifest, release.blobs, made.report))


def _joint(request: Mapping[str, Any]) -> None:
    """The loop's own recipe, once, with every label of the stream and no mistakes."""
    from models.nn.checkpoint import load_checkpoint
    from models.nn.release import Identity, Lesson, ReleaseSettings, make_release
    from models.runtime.golden import read_golden

    folder = Path(request["starting"])
    start = read_starting(folder)
    base, seed, now = start.open_base(), request["seed"], datetime.now(UTC)
    lesson = Lesson(
        new=_examples(base, request["images"], flips=True),
        memory=_examples(base, request["replay"], flips=True),
        validation=_examples(base, request["validation"], flips=False),
        golden=read_golden(start.files[start.base.file("golden").name].read_bytes()),
        classes=SPECS,
        costs=_costs(),
        start=None,
        domains=[row["domain"] for row in request["validation"]],
    )
    lineage = Lineage(
        training_run="joint", labels=len(lesson.new), code_version=version("edgeloop"), seed=seed, trained_at=now
    )
    identity = Identity(start.base.digest(), request["line"], 2, lineage, now, exposure=start.adapter.exposure)
    model = load_checkpoint(folder / CHECKPOINT)
    made = make_release(base, model, lesson, identity, settings=ReleaseSettings(), seed=seed)
    write_adapter(Path(request["out"]), made.packed.manifest, made.packed.blobs)


def _costs() -> Any:
    from models.nn.release import Costs

    return Costs(escape=ESCAPE_COST, overkill=OVERKILL_COST)


def _examples(base: Any, rows: Sequence[Mapping[str, str]], *, flips: bool) -> Any:
    import numpy as np

    from models.nn.starting import StartingSettings, tokenize
    from models.runtime.image import decode_image

    frames = [decode_image(Path(row["path"]).read_bytes()) for row in rows]
    labels = np.array([CLASSES.index(row["label"]) for row in rows], dtype=np.int64)
    return tokenize(base, frames, labels, StartingSettings(flips=flips))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
