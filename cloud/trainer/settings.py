"""The trainer's settings: ``[training.options]`` of cloud.toml. Unknown keys are errors."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.nn.adapt import AdaptSettings
from models.nn.release import ReleaseSettings

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


class TrainerOptions(BaseModel):
    """How a line learns.

    Args:
        flips: the part looks as valid mirrored; False where left and right differ.
        recent: that many newest labels are "new"; older ones are replayed with the memory.
        memory: replayed images at most, drawn evenly from memory references and older labels.
        epochs, min_steps, max_steps: steps are about `epochs` passes over the new labels, within the bounds.
        max_weight: cap of the inclusion weight 1 / pi before its square root is taken.
        nice: scheduling niceness of the worker, so that services on the same machine go first.
        describe: words for the review page, in idle time, on bases that have a language; elsewhere nothing happens.
        describe_languages: of the words; each costs a generation of its own.
        describe_tokens, describe_s: generated at most, per sentence; seconds of it at most.
        device: where it learns: auto (a CUDA device where there is one), cpu, cuda or cuda:NUMBER.
        compile: compile the trunk's layers first; pays on a GPU from about 150 steps of 64 images.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    seed: int = 0
    flips: bool = True
    recent: Positive = 1000
    memory: Positive = 2000
    epochs: Annotated[float, Field(gt=0)] = 3.0
    min_steps: Positive = 30
    max_steps: Positive = 200
    rate: Rate = 3e-4
    batch_new: Positive = 16
    batch_memory: Positive = 16
    shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (1.0, 0.5)
    unsure_share: Annotated[float, Field(ge=0, lt=1)] = 0.06
    max_weight: Annotated[float, Field(ge=1)] = 20.0
    nice: Annotated[int, Field(ge=0, le=19)] = 5
    describe: bool = True
    describe_languages: Annotated[tuple[Literal["en", "zh"], ...], Field(min_length=1, max_length=2)] = ("en", "zh")
    describe_tokens: Annotated[int, Field(ge=1, le=512)] = 64
    describe_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 120.0
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda|cuda:[0-9]{1,2})$")] = "auto"
    compile: bool = False

    def release(self, threads: int) -> ReleaseSettings:
        """The recipe's settings."""
        adapt = AdaptSettings(
            batch_new=self.batch_new,
            batch_memory=self.batch_memory,
            epochs=self.epochs,
            min_steps=self.min_steps,
            max_steps=self.max_steps,
            rate=self.rate,
            threads=threads,
            device=self.device,
            compiled=self.compile,
        )
        return ReleaseSettings(adapt=adapt, shares=self.shares, unsure_share=self.unsure_share)
