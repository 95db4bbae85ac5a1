"""A line as somebody typed it: the options of `edgeloop cloud line create`, made into a `LineSpec`.

A fault is one line that names the option and says what to write instead. The rules themselves are in `schemas`; those
about classes are asked here once more, so that their sentences can speak of the options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from cloud.lines.schemas import LineSpec, NewClass
from models.contracts.model_manifest import MAX_CLASSES

_FORMS = "write NAME, NAME:defect or NAME:defect:must-catch"
_MARKS = frozenset({"defect", "good", "must-catch"})
_TEXT = "write 1 to 256 characters, none of them a control character"
_MONEY = "write a number, 0 or more"
_SHORT = "write 1 to 64 small letters, digits or dashes, with no dash at either end"
_ADVICE = {
    "name": ("NAME", _SHORT),
    "title": ("--title", _TEXT),
    "classes": ("--class", f"name 2 to {MAX_CLASSES} classes; {_FORMS}"),
    "escape_cost": ("--escape-cost", _MONEY),
    "overkill_cost": ("--overkill-cost", _MONEY),
    "currency": ("--currency", "write three capital letters, such as EUR"),
    "cameras": ("--camera", f"give at most 256, each its own name; {_SHORT}"),
    "hour_s": ("--hour-s", "write seconds, more than 0 and at most 86400"),
}


class BadOption(ValueError):
    """An option cannot be used; the text names it and says what to write."""


def line_spec(classes: Sequence[str], **options: Any) -> LineSpec:
    """The line that the options state.

    Args:
        classes: each as NAME, NAME:good, NAME:defect or NAME:defect:must-catch.

    Raises:
        BadOption: one of them cannot be used.
    """
    found = [parse_class(text) for text in classes]
    _check_once(found)
    _check_kinds(found)
    try:
        return LineSpec.model_validate({"classes": found, **options})
    except ValidationError as fault:
        place = fault.errors()[0]["loc"]
        raise BadOption(_advice(str(place[0]), place[1:], options)) from fault


def parse_class(text: str) -> NewClass:
    """One class of the line.

    Raises:
        BadOption: it has no name, or its marks are unknown or contradict each other.
    """
    name, *marks = (part.strip() for part in text.split(":"))
    if not name:
        raise BadOption(f"--class {text!r} has no name: {_FORMS}")
    if unknown := sorted(set(marks) - _MARKS):
        raise BadOption(f"--class {text!r}: {unknown[0]!r} is no mark of a class; {_FORMS}")
    defect = "defect" in marks or "must-catch" in marks
    if defect and "good" in marks:
        other = "must-catch" if "must-catch" in marks else "a defect"
        raise BadOption(f"--class {text!r} cannot be good and {other}: {_FORMS}")
    try:
        return NewClass(name=name, defect=defect, must_catch="must-catch" in marks)
    except ValidationError as fault:
        raise BadOption(f"--class {text!r} has a name that cannot be used: {_TEXT}") from fault


def _check_once(classes: Sequence[NewClass]) -> None:
    known: dict[str, NewClass] = {}
    for one in classes:
        before = known.setdefault(one.name, one)
        if before is one:
            continue
        how = "as good and as defect" if before.defect != one.defect else "twice"
        raise BadOption(f"--class {one.name!r} is given {how}: give each class once")


def _check_kinds(classes: Sequence[NewClass]) -> None:
    if not any(one.defect for one in classes):
        raise BadOption("--class: no class is a defect; add one as --class NAME:defect")
    if all(one.defect for one in classes):
        raise BadOption("--class: no class is good; add one as --class NAME")


def _advice(field: str, inner: Sequence[int | str], options: Mapping[str, Any]) -> str:
    option, advice = _ADVICE[field]
    value = options.get(field)
    if inner and isinstance(inner[0], int) and isinstance(value, Sequence):
        value = value[inner[0]]
    elif field == "cameras" and isinstance(value, Sequence):
        value = next((one for one in value if list(value).count(one) > 1), None)
    given = "" if value is None else f" {value!r}" if isinstance(value, str) else f" {value:g}"
    return f"{option}{given} cannot be used: {advice}"
