"""The demo as data: how long, how many boxes, when the product changes, who labels how fast and how well.

A compressed hour has `hour_s` seconds. After `change_after` hours the lines switch from monocrystalline to
polycrystalline cells. Shares count distinct cells, not replays: a stream shorter than the run starts over, and a cell
seen again is the same cell.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulators.cells import CellType

LINE = "cells"
CLASSES = ("good", "defective")
GOOD, DEFECTIVE = CLASSES
CHANNEL = "stable"
CAMERA = "cam-1"
MIN_LEARNING_HOURS = 2
ESCAPE_COST, OVERKILL_COST = 5.0, 3.0
"""Per part. With three to four defects in ten this weighs both kinds of mistake alike, as balanced accuracy does."""


class BadScenario(ValueError):
    """A number of the scenario cannot be. The text says which and what it may be."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run.

    Args:
        hours: compressed hours of the run.
        hour_s: seconds of one compressed hour.
        edges: boxes, one camera each.
        change_after: hours of monocrystalline cells before the change.
        parts_per_hour: parts that pass all cameras together in an hour, all of them distinct cells.
        label_share: the reviewer's capacity per hour as a share of the hour's parts.
        upload_share: the upload budget of an hour in bytes, as a share of the bytes of all its frames.
        audit_share: part of the budget that is pure random audit.
        review_delay_s: seconds between a sample's arrival at the review queue and its label.
        mistakes: probability that the reviewer names the wrong class.
        seed: of sets, schedules, reviewer, agents and training.
        label_by_hand: leave the labels to a person at the dashboard.
    """

    hours: int = 8
    hour_s: int = 40
    edges: int = 3
    change_after: int = 2
    parts_per_hour: int = 120
    label_share: float = 0.29
    upload_share: float = 0.3
    audit_share: float = 0.3
    review_delay_s: float = 4.0
    mistakes: float = 0.02
    seed: int = 7
    preset: str = "nano"
    label_by_hand: bool = False

    def __post_init__(self) -> None:
        for name, low, high in (
            ("hours", 1, 1000),
            ("hour_s", 10, 3600),
            ("edges", 1, 32),
            ("change_after", 0, 1000),
            ("parts_per_hour", 1, 1000),
            ("seed", 0, 2**31 - 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise BadScenario(f"{name} is {getattr(self, name)}: choose {low} to {high}")
        for name in ("label_share", "upload_share", "audit_share"):
            if not 0 < getattr(self, name) <= 1:
                raise BadScenario(f"{name} is {getattr(self, name)}: choose a share above 0 and at most 1")
        if not 0 <= self.mistakes < 0.5:
            raise BadScenario(f"mistakes is {self.mistakes}: choose a share from 0 to below 0.5")
        if self.parts_per_hour < self.edges:
            raise BadScenario(f"{self.parts_per_hour} parts an hour are fewer than the {self.edges} edges")
        if self.hours < self.change_after + MIN_LEARNING_HOURS:
            raise BadScenario(
                f"hours is {self.hours}: the change comes after hour {self.change_after}, and the loop needs at least "
                f"{MIN_LEARNING_HOURS} hours after it"
            )

    @property
    def edge_names(self) -> list[str]:
        return [f"edge-{number}" for number in range(1, self.edges + 1)]

    @property
    def labels_per_hour(self) -> int:
        """What the reviewer can do in an hour."""
        return int(self.label_share * self.parts_per_hour)

    @property
    def length_s(self) -> int:
        return self.hours * self.hour_s

    def kind(self, hour: int) -> CellType:
        """The cell type of an hour, counted from 1."""
        return "mono" if hour <= self.change_after else "poly"

    def starts(self, first: float, hour: int) -> float:
        """Unix seconds at which `hour` begins when hour 1 begins at `first`."""
        return first + (hour - 1) * self.hour_s

    def next_start(self, now: float, *, lead_s: float) -> int:
        """The first border of an hour that is at least `lead_s` away: hours of the demo are hours of the clock."""
        return -int(-(now + lead_s) // self.hour_s) * self.hour_s
