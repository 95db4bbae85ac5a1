"""What the rules look at: two models' calls on the same labelled images, and what was measured about the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cloud.gate.evaluate import Calls, Scores
from cloud.gate.metrics import Resampler
from cloud.gate.settings import GateSettings
from models.contracts.base import canonical, sha256_hex
from models.contracts.model_manifest import CascadeCuts, ClassSpec

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """One model on the gate set. `identity` names what decides its outputs: digests of adapter, head, thresholds.

    `cuts` decide only which parts a model in a cascade ends by itself, never what it would call.
    """

    release: int
    scores: Scores
    calls: Calls
    size: int
    latency: F64
    has_adapter: bool
    identity: str
    cuts: CascadeCuts | None = None


@dataclass(frozen=True)
class Evidence:
    """Everything a rule may use. `incumbent` is None for a line's first release: relative rules then do not apply."""

    classes: list[ClassSpec]
    truth: Ints
    domains: list[str | None]
    groups: list[str | None]
    must_catch: Mask
    digests: list[str]
    candidate: Judged
    incumbent: Judged | None
    measured: Mapping[str, Any]
    limits: GateSettings
    best: tuple[int, float] | None = None
    """Adapter release and macro-F1 of the best one published so far that was judged on this very gate set."""

    @cached_property
    def defect(self) -> Mask:
        """[N]: which images truly show a defect."""
        return np.array([spec.defect for spec in self.classes])[self.truth]

    @property
    def resampler(self) -> Resampler:
        """The bootstrap of this gate set."""
        return Resampler(self.groups, self.truth, seed=self.limits.seed, draws=self.limits.bootstrap)

    def slices(self) -> dict[str, Mask]:
        """All images, and each domain's when there are two or more."""
        everything = np.ones(len(self.truth), dtype=bool)
        names = sorted({domain for domain in self.domains if domain is not None})
        if len(names) < 2:
            return {"all": everything}
        return {"all": everything, **{name: np.array([d == name for d in self.domains]) for name in names}}


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule's word: `text` is for a person and carries its own numbers; `numbers` are for programs."""

    rule: str
    passed: bool
    text: str
    numbers: dict[str, Any] = field(default_factory=dict)


class Rule(Protocol):
    """One condition. `name` is stable: reports and settings refer to it."""

    name: str
    relative: bool
    """Whether it compares with the incumbent and so does not apply to a first release."""

    def judge(self, evidence: Evidence) -> Finding:
        """Never raises for a bad candidate: that is a finding."""
        ...


def gate_set_name(digests: list[str], truth: Ints) -> str:
    """A gate set by its content: reports of the same set may be compared."""
    return sha256_hex(canonical([digests, truth.tolist()]))


def points(share: float) -> str:
    """A fraction as percentage points, for a person."""
    return f"{share * 100:+.2f} pp"


def percent(share: float) -> str:
    """A fraction in percent, for a person."""
    return f"{share * 100:.1f} %"
