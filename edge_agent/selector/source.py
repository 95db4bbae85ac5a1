"""From an inspection to the terms of the selection rule, with what they need of the model prepared once per release."""

from __future__ import annotations

from edge_agent.decision import Call
from edge_agent.selector.memory import unit
from edge_agent.selector.terms import Prototypes, Terms, disagreement
from models.runtime.heads import ClassHead
from models.runtime.inspector import Inspection, LineModel


class TermSource:
    """Remembers the current model's prototypes and the previous model's head. Used by the pipeline's thread alone."""

    def __init__(self) -> None:
        self._model: LineModel | None = None
        self._previous: ClassHead | None = None
        self._prototypes: Prototypes | None = None

    def of(self, inspection: Inspection, call: Call) -> Terms:
        """The terms of a judged part."""
        prototypes = self._follow(inspection.model)
        embedding, probabilities = inspection.embedding, inspection.probabilities
        if embedding is None or probabilities is None:
            return Terms(margin=call.margin)
        return Terms(
            margin=call.margin,
            novelty=prototypes.novelty(embedding),
            disagreement=disagreement(
                inspection.model.head, self._previous, embedding=embedding, probabilities=probabilities
            ),
            direction=unit(embedding),
        )

    def _follow(self, model: LineModel) -> Prototypes:
        """Notice a swap. The same release content under a new number is the same model."""
        if self._prototypes is None or self._model is None or self._model.manifest_sha != model.manifest_sha:
            self._previous = self._model.head if self._model else None
            self._prototypes = Prototypes(model.prototypes)
        self._model = model
        return self._prototypes
