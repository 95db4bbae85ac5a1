from __future__ import annotations

import numpy as np
import pytest

from edge_agent.selector.terms import Prototypes, Terms, disagreement, total_variation
from models.contracts.model_manifest import ClassSpec
from models.runtime.heads import ClassHead, load_head, pack_head

CLASSES = [ClassSpec(name="good", defect=False), ClassSpec(name="crack", defect=True)]


def head(*names: str, width: int = 4, seed: int = 0) -> ClassHead:
    rng = np.random.default_rng(seed)
    classes = [ClassSpec(name=n, defect=i > 0) for i, n in enumerate(names or ("good", "crack"))]
    weight = rng.standard_normal((len(classes), width)).astype(np.float32)
    spec, data = pack_head(weight, np.zeros(len(classes), dtype=np.float32), kind="linear", classes=classes)
    return load_head(spec, data, embedding=width)


def test_u_is_the_weighted_sum() -> None:
    assert Terms(margin=0.2, novelty=0.6, disagreement=0.4).hardness == pytest.approx(0.5 * 0.8 + 0.35 * 0.6 + 0.06)


def test_a_missing_terms_weight_goes_to_the_others() -> None:
    assert Terms(margin=0.2).hardness == pytest.approx(0.8)
    assert Terms(margin=0.2, novelty=0.6).hardness == pytest.approx((0.5 * 0.8 + 0.35 * 0.6) / 0.85)
    assert Terms().hardness is None


def test_novelty_grows_with_distance_and_ends_at_one() -> None:
    rng = np.random.default_rng(3)
    centre = np.array([5, 0, 0, 0], dtype=np.float32)
    prototypes = Prototypes((centre + rng.standard_normal((40, 4))).astype(np.float32))
    familiar = np.mean(
        [prototypes.novelty((centre + 0.3 * rng.standard_normal(4)).astype(np.float32)) for _ in range(50)]
    )
    strange = prototypes.novelty(-centre)
    assert familiar < 0.6
    assert strange == 1.0


def test_few_prototypes_say_nothing_of_novelty() -> None:
    assert Prototypes(np.eye(4, dtype=np.float32)).novelty(np.ones(4, dtype=np.float32)) is None


def test_many_prototypes_are_thinned_not_refused() -> None:
    rows = np.random.default_rng(0).standard_normal((5000, 3)).astype(np.float32)
    assert Prototypes(rows).novelty(rows[0]) == pytest.approx(0, abs=0.05)


def test_disagreement_is_the_total_variation_between_heads() -> None:
    embedding = np.array([1, 2, 0, -1], dtype=np.float32)
    current, previous = head(seed=1), head(seed=2)
    p, q = (h.probabilities(embedding[None])[0] for h in (current, previous))
    assert disagreement(current, previous, embedding=embedding, probabilities=p) == pytest.approx(
        abs(p[0] - q[0]), abs=1e-6
    )
    assert disagreement(current, current, embedding=embedding, probabilities=p) == 0
    assert total_variation(np.array([1, 0]), np.array([0, 1])) == 1


@pytest.mark.parametrize("previous", [None, head("good", "dirt"), head(width=5)])
def test_heads_that_do_not_compare_say_nothing(previous: ClassHead | None) -> None:
    current, embedding = head(), np.ones(4, dtype=np.float32)
    probabilities = current.probabilities(embedding[None])[0]
    assert disagreement(current, previous, embedding=embedding, probabilities=probabilities) is None
