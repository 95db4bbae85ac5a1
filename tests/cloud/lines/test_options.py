"""The options of a line: every odd one is one sentence that names it; what is right becomes the line asked for."""

from __future__ import annotations

from typing import Any

import pytest

from cloud.lines.options import BadOption, line_spec

GOOD = ["good", "crack:defect:must-catch"]
REST: dict[str, Any] = {"name": "cells", "title": "Cells"}


def fault(classes: list[str], **options: Any) -> str:
    with pytest.raises(BadOption) as caught:
        line_spec(classes, **{**REST, **options})
    said = str(caught.value)
    assert "\n" not in said
    assert not any(word in said for word in ("Value error", "String should", "Input should", "List should"))
    return said


def test_what_is_right_becomes_the_line() -> None:
    made = line_spec(["fine:good", " dent : defect ", "crack:defect:must-catch"], **REST, cameras=["top"])
    assert [(one.name, one.defect, one.must_catch) for one in made.classes] == [
        ("fine", False, False),
        ("dent", True, False),
        ("crack", True, True),
    ]
    assert made.cameras == ["top"]


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ([*GOOD, "crack"], "--class 'crack' is given as good and as defect: give each class once"),
        ([*GOOD, "good"], "--class 'good' is given twice: give each class once"),
        ([*GOOD, "x:good:must-catch"], "--class 'x:good:must-catch' cannot be good and must-catch: write NAME"),
        ([*GOOD, "x:good:defect"], "--class 'x:good:defect' cannot be good and a defect: write NAME"),
        ([*GOOD, ":must-catch"], "--class ':must-catch' has no name: write NAME"),
        ([*GOOD, ""], "--class '' has no name: write NAME"),
        ([*GOOD, "  "], "--class '  ' has no name: write NAME"),
        ([*GOOD, "x:bad"], "--class 'x:bad': 'bad' is no mark of a class; write NAME"),
        ([*GOOD, "x\x07y"], "--class 'x\\x07y' has a name that cannot be used: write 1 to 256"),
        (["good", "fine"], "--class: no class is a defect; add one as --class NAME:defect"),
        (["crack:defect"], "--class: no class is good; add one as --class NAME"),
        ([*GOOD, *(f"c{n}" for n in range(255))], "--class cannot be used: name 2 to 256 classes"),
    ],
)
def test_odd_classes_are_refused_by_name(classes: list[str], said: str) -> None:
    assert fault(classes).startswith(said)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"name": "Big Cells"}, "NAME 'Big Cells' cannot be used: write 1 to 64 small letters"),
        ({"name": ""}, "NAME '' cannot be used"),
        ({"title": " "}, "--title ' ' cannot be used: write 1 to 256 characters"),
        ({"escape_cost": -1.0}, "--escape-cost -1 cannot be used: write a number, 0 or more"),
        ({"overkill_cost": float("nan")}, "--overkill-cost nan cannot be used: write a number, 0 or more"),
        ({"currency": "euro"}, "--currency 'euro' cannot be used: write three capital letters"),
        ({"hour_s": 0.0}, "--hour-s 0 cannot be used: write seconds, more than 0"),
        ({"cameras": ["top", "Top 2"]}, "--camera 'Top 2' cannot be used"),
        ({"cameras": ["side", "top", "top"]}, "--camera 'top' cannot be used: give at most 256, each its own name"),
        ({"cameras": [f"c{n}" for n in range(257)]}, "--camera cannot be used: give at most 256"),
    ],
)
def test_every_other_option_is_refused_by_name(option: dict[str, Any], said: str) -> None:
    assert fault(GOOD, **option).startswith(said)
