"""Labelled images as a folder: how the commands of `edgeloop models` read them, and which classes they make."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from models.terminal import fail

if TYPE_CHECKING:
    from models.contracts.model_manifest import ClassSpec
    from models.nn.starting import LabelledImage
    from models.runtime.preprocess import Roi

GOOD_NAMES = "good,ok,normal,free,clean,functional"
ROUNDING = 1e-9
"""Of a sum of two shares, as 0.7 + 0.3."""
CANNOT_TRAIN = 4
"""Exit code: the images do not allow a model that could be trusted."""


def names(text: str) -> set[str]:
    """The words between commas."""
    return {name.strip() for name in text.split(",") if name.strip()}


def read_roi(text: str) -> Roi | None:
    """``x,y,width,height`` as shares of the frame; None for the whole frame; ends the command on anything else."""
    if not text.strip():
        return None
    wanted = "write x,y,width,height as shares of the frame from 0 to 1, like 0.1,0.2,0.5,0.6"
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        fail(f"--roi {text!r}: {wanted}", 2)
    if not all(0 <= one <= 1 for one in (x, y, width, height)):
        fail(f"--roi {text!r}: {wanted}", 2)
    if not width or not height:
        fail(f"--roi {text!r}: width and height must be above 0", 2)
    if x + width > 1 + ROUNDING or y + height > 1 + ROUNDING:
        fail(f"--roi {text!r} reaches beyond the frame: x + width and y + height may be at most 1", 2)
    return x, y, width, height


def read_images(folder: Path) -> list[LabelledImage]:
    """Images with their folder as label; ``labels.csv`` (file,label[,domain][,group]) takes its place where it is."""
    import csv

    from models.nn.starting import LabelledImage

    if not folder.is_dir():
        fail(f"{folder} is no folder: give one with a folder of images per class", 2)
    table = folder / "labels.csv"
    try:
        if not table.is_file():
            paths = sorted(p for p in folder.glob("*/*") if p.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp"))
            return [LabelledImage(_bytes(path), path.parent.name, source=str(path)) for path in paths]
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [_row(folder, r) for r in rows]
    except (UnicodeDecodeError, csv.Error) as fault:
        fail(f"{table} is no table in UTF-8: {fault}", 2)
    except KeyError as missing:
        fail(f"{table} needs the columns file and label; {missing} is not there", 2)
    except OSError as fault:
        fail(f"{table}: {fault.strerror or fault}", 2)


def _row(folder: Path, row: dict[str, str | None]) -> LabelledImage:
    """One row of labels.csv."""
    from models.nn.starting import LabelledImage

    name, label = row["file"], row["label"]
    if not name or not label:
        fail(f"{folder / 'labels.csv'}: a row lacks its file or its label: {name or label or 'both are empty'}", 2)
    path = folder / name
    return LabelledImage(_bytes(path), label, row.get("domain") or None, row.get("group") or None, str(path))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as fault:
        fail(f"the image {path} cannot be opened: {fault.strerror or fault}; remove or replace it", 2)


def named_classes(
    images: list[LabelledImage], *, good: set[str], must_catch: set[str], also: set[str]
) -> list[ClassSpec]:
    """The classes of these images and of `also`, good ones first; ends the command where they allow no model."""
    from models.contracts.model_manifest import ClassSpec

    found = sorted({image.label for image in images} | also)
    if not found:
        fail("the folder has no images: make one folder per class and put PNG, JPEG or BMP files into it", CANNOT_TRAIN)
    defects = [name for name in found if name not in good]
    if len(defects) == len(found) or not defects:
        missing = "good" if defects else "defect"
        fail(f"the classes {', '.join(found)} hold no {missing} class: name the good ones with --good", CANNOT_TRAIN)
    if unknown := sorted(must_catch - set(defects)):
        fail(f"--must-catch {unknown[0]}: there is no such defect class; there are: {', '.join(defects)}", 2)
    ordered = [name for name in found if name in good] + defects
    return [ClassSpec(name=n, defect=n in defects, must_catch=n in must_catch) for n in ordered]
