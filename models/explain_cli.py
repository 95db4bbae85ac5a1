"""`edgeloop models explain`: what a line's model says of one image, in words, with a picture of its reasons.

With ``--generate`` a second sentence in the words of the base's language model, marked as such; see
`models.runtime.grounding` for what it may say.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from models.terminal import AsJson, fail

if TYPE_CHECKING:
    from models.runtime.explain import Explanation
    from models.runtime.image import Pixels
    from models.runtime.inspector import LineModel


class Language(StrEnum):
    """Of the sentence."""

    EN = "en"
    ZH = "zh"


_SAID = {"en": "The model's own words, not a measurement: {text}", "zh": "模型自己的话，并非测量结果：{text}"}
_NOT_SAID = {"en": "No generated sentence: {why}.", "zh": "未采用模型生成的句子：{why}。"}
_NOTHING = {"en": "there is no decision, so nothing to describe", "zh": "没有判定，无可描述"}


def explain(
    image: Annotated[Path, typer.Argument(help="A PNG, JPEG or BMP file, as the camera gives it.")],
    *,
    model: Annotated[Path, typer.Option(help="A folder made by train.")],
    out: Annotated[Path | None, typer.Option(help="Write the image with the evidence over it, as PNG.")] = None,
    language: Annotated[Language, typer.Option(help="Of the sentence.")] = Language.EN,
    generate: Annotated[
        bool, typer.Option("--generate", help="Add a sentence by the base's own language model; slow.")
    ] = False,
    tokens: Annotated[int, typer.Option(min=1, max=512, help="Generated at most.")] = 64,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of generating at most.")] = 120.0,
    as_json: AsJson = False,
) -> None:
    """Say what the model sees: verdict, class, how sure, where. Without --generate, at no extra pass."""
    from models.runtime.explain import explain as explained
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
    if out is not None:
        _write_overlay(out, line_model, pixels, found)
    document = _document(line_model, found, language)
    said = [document["sentence"]]
    if generate:
        document["generated"], line = _generated(
            model, line_model, pixels, found, language=language.value, limits=(tokens, seconds)
        )
        said.append(line)
    print(json.dumps(document, ensure_ascii=False, sort_keys=True) if as_json else "\n".join(said))


def _document(model: LineModel, found: Explanation, language: Language) -> dict[str, Any]:
    place = found.place
    return {
        "schema": 1, "sentence": found.sentence(language.value), "verdict": found.verdict, "reason": found.reason,
        "class": found.name, "probability": found.probability, "defect_score": found.defect_score,
        "release": model.manifest.release,
        "place": None if place is None else {"x": place.x, "y": place.y, "share": place.share},
        "evidence": None if found.evidence is None else found.evidence.round(4).tolist(),
    }  # fmt: skip


def _write_overlay(out: Path, model: LineModel, pixels: Pixels, found: Explanation) -> None:
    import cv2

    from models.runtime.explain import overlay

    picture = overlay(pixels, found, roi=model.manifest.roi or model.base.manifest.preprocessing.roi)
    try:
        out.write_bytes(cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes())
    except OSError as fault:
        fail(f"{out}: {fault.strerror or fault}")


def _generated(
    folder: Path, model: LineModel, pixels: Pixels, found: Explanation, *, language: Any, limits: tuple[int, float]
) -> tuple[dict[str, Any] | None, str]:
    """The generated sentence or why there is none, for a program and for a person."""
    from models.nn.checkpoint import BadCheckpoint
    from models.nn.generate import CannotGenerate, Limits, open_speaker
    from models.nn.prompt import BadPrompt
    from models.runtime.grounding import Facts

    try:
        speaker = open_speaker(folder, model.base.manifest)
        if found.name is None:
            return None, _NOT_SAID[language].format(why=_NOTHING[language])
        facts = Facts(found.verdict, found.name, {c.name: c.defect for c in model.head.classes}, found.place)
        judged, raw = speaker.describe(
            pixels, facts, language=language, roi=model.manifest.roi, limits=Limits(*limits)
        )  # fmt: skip
    except (CannotGenerate, BadPrompt, BadCheckpoint) as fault:
        fail(f"no sentence can be generated: {fault}")
    document = {"text": judged.text, "dropped": judged.dropped, "tokens": len(raw.ids), "seconds": raw.seconds}
    if judged.dropped is not None:
        return document, _NOT_SAID[language].format(why=judged.dropped.words(language))
    return document, _SAID[language].format(text=judged.text)


def _open(folder: Path) -> LineModel:
    from models.runtime.bundle import BadBundle, is_complete, read_starting

    if not is_complete(folder) or not (folder / "adapter.json").exists():
        fail(f"--model {folder}: give a folder that edgeloop models train made (its --out)", 2)
    try:
        return read_starting(folder).model()
    except BadBundle as fault:
        fail(str(fault))
