"""`edgeloop models explain`: what a line's model says of one image, in words, with a picture of its reasons."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from models.terminal import AsJson, fail


class Language(StrEnum):
    """Of the sentence."""

    EN = "en"
    ZH = "zh"


def explain(
    image: Annotated[Path, typer.Argument(help="A PNG, JPEG or BMP file, as the camera gives it.")],
    *,
    model: Annotated[Path, typer.Option(help="A folder made by train.")],
    out: Annotated[Path | None, typer.Option(help="Write the image with the evidence over it, as PNG.")] = None,
    language: Annotated[Language, typer.Option(help="Of the sentence.")] = Language.EN,
    as_json: AsJson = False,
) -> None:
    """Say what the model sees: verdict, class, how sure, where. Without generation, at no extra pass."""
    import cv2

    from models.runtime.explain import explain as explained
    from models.runtime.explain import overlay
    from models.runtime.image import Unreadable, decode_image
    from models.runtime.inspector import inspect

    if out is not None and out.suffix.lower() != ".png":
        fail(f"--out {out}: give a name that ends in .png", 2)
    line_model = _open(model)
    try:
        pixels = decode_image(image.read_bytes())
    except OSError as fault:
        fail(f"{image}: {fault.strerror or fault}", 2)
    except Unreadable as fault:
        fail(f"{image} cannot be read: {fault}", 2)
    found = explained(inspect(line_model, pixels))
    sentence = found.sentence(language.value)
    if out is not None:
        picture = overlay(pixels, found, roi=line_model.manifest.roi or line_model.base.manifest.preprocessing.roi)
        try:
            out.write_bytes(cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes())
        except OSError as fault:
            fail(f"{out}: {fault.strerror or fault}")
    place = found.place
    document = {
        "schema": 1, "sentence": sentence, "verdict": found.verdict, "reason": found.reason, "class": found.name,
        "probability": found.probability, "defect_score": found.defect_score, "release": line_model.manifest.release,
        "place": None if place is None else {"x": place.x, "y": place.y, "share": place.share},
        "evidence": None if found.evidence is None else found.evidence.round(4).tolist(),
    }  # fmt: skip
    print(json.dumps(document, ensure_ascii=False, sort_keys=True) if as_json else sentence)


def _open(folder: Path):
    from models.runtime.bundle import BadBundle, is_complete, read_starting

    if not is_complete(folder) or not (folder / "adapter.json").exists():
        fail(f"--model {folder}: give a folder that edgeloop models train made (its --out)", 2)
    try:
        return read_starting(folder).model()
    except BadBundle as fault:
        fail(str(fault))
