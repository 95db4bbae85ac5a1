"""The rules of the gate, one small class each, and the one table of all of them."""

from __future__ import annotations

from cloud.gate.evidence import Rule
from cloud.gate.rules.budgets import Latency, Size
from cloud.gate.rules.calibration import Calibration
from cloud.gate.rules.chance import BetterThanChance
from cloud.gate.rules.erosion import Erosion
from cloud.gate.rules.gate_set import GateSet
from cloud.gate.rules.must_catch import MustCatch
from cloud.gate.rules.non_inferior import NonInferior
from cloud.gate.rules.recall import Recall
from cloud.gate.rules.sound import Different, Parity, Usable

RULES: tuple[Rule, ...] = (
    GateSet(),
    Usable(),
    BetterThanChance(),
    NonInferior(),
    Erosion(),
    MustCatch(),
    Recall(),
    Calibration(),
    Size(),
    Latency(),
    Parity(),
    Different(),
)
"""All must hold. The order is that of the report."""
