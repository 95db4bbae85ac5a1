"""``python -m simulators.demo.job REQUEST``: trains one model outside the loop and writes it as a bundle.

The starting model goes through the code of `edgeloop models train`; the joint reference through the trainer's, with
every label of the stream instead of the few a reviewer gave. Only this process loads torch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.contracts.model_manifest import ClassSpec
from simulators.demo.bundle import Bundle, read_starting, write_adapter, write_starting
from simulators.demo.scenario import CLASSES, DEFECTIVE

SPECS = [ClassSpec(name=name, defect=name == DEFECTIVE) for name in CLASSES]


def main(arguments: Sequence[str]) -> int:
    """Train what the request file asks for."""
    request = json.loads(Path(arguments[0]).read_text())
    (_starting if request["kind"] == "starting" else _joint)(request)
    return 0


def _images(rows: Sequence[Mapping[str, str]]) -> list[Any]:
    from cloud.trainer.starting import LabelledImage

    return [
        LabelledImage(data=Path(row["path"]).read_bytes(), label=row["label"], domain=row["domain"], group=row["group"])
        for row in rows
    ]


def _starting(request: Mapping[str, Any]) -> None:
    from cloud.trainer.starting import build_base

    made = build_base(
        _images(request["images"]),
        line=request["line"],
        classes=SPECS,
        preset=request["preset"],
        seed=request["seed"],
        folder=Path(request["out"]) / "work",
    )
    bundle = Bundle(made.base, made.files, made.checkpoint, made.adapter, made.blobs, made.metrics)
    write_starting(Path(request["out"]), bundle)


def _joint(request: Mapping[str, Any]) -> None:
    from cloud.trainer.starting import build_joint

    start = read_starting(Path(request["starting"]))
    adapter, blobs = build_joint(
        _images(request["images"]),
        replay=_images(request["replay"]),
        base=start.base,
        checkpoint=start.checkpoint,
        parent=start.adapter,
        parent_blobs=start.blobs,
        files=start.files,
        seed=request["seed"],
    )
    write_adapter(Path(request["out"]), adapter, blobs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
