"""What a line is, as people state it, and the reference images that came with it.

Rules: at least one good and one defect class, names unique, must-catch only for defects, costs not negative. A camera
name serves one camera of the line. What a line already said is not taken back: classes are only ever added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from models.contracts.base import Identifier, Text
from models.contracts.model_manifest import MAX_CLASSES, ClassSpec

Purpose = Literal["gate", "memory"]
"""``gate`` judges releases and is never trained on; ``memory`` is replayed in training."""
FOR_EVER = 2**62
"""As a moment in microseconds: the set with every image that will ever count."""
Money = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[Text, StringConstraints(pattern=r"\S")]


class NewClass(BaseModel):
    """One class as asked for. A must-catch class may never be newly missed by an update."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Name
    defect: bool
    must_catch: bool = False

    def spec(self) -> ClassSpec:
        """The same in the words of the manifests."""
        return ClassSpec(name=self.name, defect=self.defect, must_catch=self.must_catch)


def check_classes(classes: list[NewClass]) -> list[NewClass]:
    """The classes, if a line can have them.

    Raises:
        ValueError: saying what to change.
    """
    names = [one.name for one in classes]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two classes are called {doubled[0]!r}; give each its own name")
    if not any(one.defect for one in classes):
        raise ValueError("there is no defect class; add at least one class with defect = true")
    if all(one.defect for one in classes):
        raise ValueError("there is no good class; add at least one class with defect = false")
    for one in classes:
        if one.must_catch and not one.defect:
            raise ValueError(
                f"{one.name!r} is a good class and cannot be must-catch; set defect = true or drop must_catch"
            )
    return classes


class LineSpec(BaseModel):
    """A line as asked for. `hour_s` is the length of a period in seconds: 3600 but for a demonstration."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Identifier
    title: Name
    classes: list[NewClass] = Field(min_length=2, max_length=MAX_CLASSES)
    escape_cost: Money = 0.0
    overkill_cost: Money = 0.0
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = "EUR"
    cameras: list[Identifier] = Field(default_factory=list, max_length=256)
    hour_s: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = 3600.0

    @field_validator("classes")
    @classmethod
    def _classes(cls, classes: list[NewClass]) -> list[NewClass]:
        return check_classes(classes)

    @field_validator("cameras")
    @classmethod
    def _cameras(cls, cameras: list[str]) -> list[str]:
        if len(set(cameras)) != len(cameras):
            raise ValueError("two cameras share a name; give each its own")
        return cameras


class LineView(LineSpec):
    """A line as answered."""

    created_at: int

    @property
    def class_specs(self) -> list[ClassSpec]:
        """The classes in the words of the manifests, in their fixed order."""
        return [one.spec() for one in self.classes]

    def period(self, at_us: int) -> int:
        """The number of the period that holds a moment given in microseconds since 1970."""
        return math.floor(at_us / 1e6 / self.hour_s)


@dataclass(frozen=True, slots=True)
class ReferenceItem:
    """One labelled image to import. `domain` is the product or cell type; images of one `group` (a module, a lot)
    are alike, so a group lies in one set only. `source` is what a person would look for when it is bad: its path."""

    data: bytes
    label: str
    domain: str | None = None
    group: str | None = None
    must_catch: bool = False
    source: str | None = None


@dataclass(frozen=True, slots=True)
class ReferenceImage:
    """One imported image; the bytes are the blob `sha256`."""

    sha256: str
    label: str
    domain: str | None
    group: str | None
    must_catch: bool


class ImportResult(BaseModel):
    """How many images were new and how many were there already with the same words."""

    added: int
    known: int


class ReferenceCounts(BaseModel):
    """Images per class in one set, as of a moment."""

    purpose: Purpose
    total: int
    by_label: dict[str, int]
    by_domain: dict[str, int]
