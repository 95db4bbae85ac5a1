from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from sqlalchemy import select

from cloud.audit import verify
from cloud.db.tables import Audit, Release
from cloud.http import Problem
from cloud.registry.loading import ModelLoader, load_base
from cloud.registry.service import BadEntry
from cloud.registry.states import State, WrongMove, move
from models.contracts.base import sha256_hex
from models.contracts.model_manifest import BaseFile, Chunk
from models.runtime.bundle import LANGUAGE_HEAD, TOKENIZER
from tests.cloud.registry.world import LINE, Toy, World, toy_base

RED = {"good": (0.0, 1.0, 0.0), "scratch": (1.0, 0.0, 0.0)}
ALLOWED = {("trained", "accepted"), ("trained", "refused"), ("accepted", "published"), ("published", "revoked")}


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.add_line()
    return made


def add(world: World, toy: Toy) -> int:
    manifest, paths = toy_base(world.folder)
    base = world.registry.add_base(manifest, paths, b"checkpoint")
    adapter, blobs = toy.make(base)
    return world.registry.add_candidate(adapter, blobs, base_sha=base, metrics={"parity": 0.0}, proposal=b"{}")


@pytest.mark.parametrize(("now", "to"), list(product(get_args(State), get_args(State))))
def test_states_move_one_way(now: State, to: State) -> None:
    if (now, to) in ALLOWED:
        assert move(now, to) == to
    else:
        with pytest.raises(WrongMove):
            move(now, to)


def test_a_base_is_kept_with_its_checkpoint_and_is_one(world: World) -> None:
    manifest, paths = toy_base(world.folder)
    sha = world.registry.add_base(manifest, paths, b"checkpoint")
    assert world.registry.add_base(manifest, paths, b"checkpoint") == sha == manifest.digest()
    found, checkpoint, *language = world.registry.base(sha)
    assert language == [None, None]
    assert found == manifest
    assert world.blobs.read(checkpoint) == b"checkpoint"
    current = world.registry.current_base(LINE)
    assert current is not None
    assert current.sha == sha


def test_a_base_with_other_bytes_is_refused(world: World) -> None:
    manifest, paths = toy_base(world.folder)
    with pytest.raises(BadEntry, match="no file"):
        world.registry.add_base(manifest, {}, b"")
    paths["trunk.onnx"].write_bytes(b"flipped")
    with pytest.raises(BadEntry, match="another digest"):
        world.registry.add_base(manifest, paths, b"")


def test_a_taken_version_is_refused(world: World) -> None:
    manifest, paths = toy_base(world.folder)
    world.registry.add_base(manifest, paths, b"")
    with pytest.raises(BadEntry, match="raise the version"):
        world.registry.add_base(manifest.model_copy(update={"licence": "other"}), paths, b"")


def test_a_base_gets_its_language_once(world: World) -> None:
    manifest, paths = toy_base(world.folder)
    for name in (TOKENIZER, LANGUAGE_HEAD):
        (world.folder / name).write_bytes(name.encode())
    language = {name: world.folder / name for name in (TOKENIZER, LANGUAGE_HEAD)}
    sha = world.registry.add_base(manifest, paths, b"")
    for _ in range(2):
        assert world.registry.add_base(manifest, paths, b"", language=language) == sha
    stored = world.registry.base(sha)
    assert world.blobs.read(str(stored.tokenizer)) == TOKENIZER.encode()
    assert world.blobs.read(str(stored.language_head)) == LANGUAGE_HEAD.encode()
    assert world.registry.add_base(manifest, paths, b"") == sha
    assert world.registry.base(sha) == stored
    (world.folder / TOKENIZER).write_bytes(b"another")
    with pytest.raises(BadEntry, match="another tokenizer or language head; raise the version"):
        world.registry.add_base(manifest, paths, b"", language=language)
    with world.reads() as session:
        actions = list(session.scalars(select(Audit.action).where(Audit.action.startswith("base."))))
    assert actions == ["base.added", "base.language_added"]


def test_a_candidate_is_added_once_and_numbers_grow(world: World) -> None:
    assert world.registry.next_release(LINE) == 1
    first = add(world, Toy(1, RED))
    assert add(world, Toy(1, RED)) == first
    assert world.registry.next_release(LINE) == 2
    with pytest.raises(BadEntry, match="is taken"):
        add(world, Toy(1, RED, bias=(0.1, 0.0)))
    view = world.registry.of_line(LINE)[0]
    assert (view.state, view.release, view.metrics) == ("trained", 1, {"parity": 0.0})
    assert view.size > sum(len(blob) for blob in Toy(1, RED).make("0" * 64)[1].values())


def test_blobs_must_be_what_the_manifest_says(world: World) -> None:
    manifest, paths = toy_base(world.folder)
    base = world.registry.add_base(manifest, paths, b"")
    adapter, blobs = Toy(1, RED).make(base)
    short = dict(list(blobs.items())[1:])
    wrong = {sha: data + b"x" for sha, data in blobs.items()}
    for bad in (short, wrong):
        with pytest.raises(BadEntry, match="missing or has another"):
            world.registry.add_candidate(adapter, bad, base_sha=base)
    with pytest.raises(BadEntry, match="made for base"):
        world.registry.add_candidate(adapter, blobs, base_sha="0" * 64)


def test_the_gate_decides_once(world: World) -> None:
    id = add(world, Toy(1, RED))
    world.registry.decide(id, accepted=False, report={"summary": "worse"})
    with pytest.raises(Problem, match="refused candidate cannot become accepted"):
        world.registry.decide(id, accepted=True, report={})
    assert world.registry.candidate(id).report == {"summary": "worse"}
    with world.begin() as session, pytest.raises(Problem):
        world.registry.publish(session, LINE, 1)
    with world.reads() as session:
        assert verify(session) is None


def test_the_incumbent_is_what_the_newest_release_not_aborted_runs(world: World) -> None:
    for n in (1, 2):
        world.registry.decide(add(world, Toy(n, RED)), accepted=True, report={})
    assert world.registry.incumbent(LINE) is None
    for number, adapter, state in ((1, 1, "complete"), (2, 2, "complete"), (3, 1, "running")):
        with world.begin() as session:
            session.add(
                Release(
                    line=LINE, number=number, adapter_release=adapter, adapter_sha="0" * 64, state=state,
                    wave_opened_at=0, manifest={}, actor="t", created_at=number,
                )
            )  # fmt: skip
    incumbent = world.registry.incumbent(LINE)
    assert incumbent is not None
    assert incumbent.release == 1
    with world.begin() as session:
        session.query(Release).filter_by(number=3).one().state = "aborted"
    incumbent = world.registry.incumbent(LINE)
    assert incumbent is not None
    assert incumbent.release == 2


def test_a_model_is_loaded_as_a_box_would_and_its_base_once(world: World) -> None:
    id = add(world, Toy(1, RED))
    loader = ModelLoader(registry=world.registry, blobs=world.blobs)
    first, second = (loader.load(world.registry.candidate(id), release=n) for n in (1, 2))
    assert first.base is second.base
    tokens = np.ones((1, 4, 3), dtype=np.float32)
    embedding = first.base.embed(tokens, first.lora).embedding
    np.testing.assert_allclose(embedding, [[1, 1, 1.03]], atol=1e-6)


def test_a_base_with_external_data_gets_its_file_names_back(world: World) -> None:
    manifest, paths = toy_base(world.folder)
    extra = b"weights"
    data = BaseFile(
        role="data", name="trunk.data", sha256=sha256_hex(extra), length=len(extra),
        chunks=[Chunk(sha256=sha256_hex(extra), length=len(extra))],
    )  # fmt: skip
    manifest = manifest.model_copy(update={"files": [*manifest.files, data]})
    paths["trunk.data"] = world.folder / "trunk.data"
    paths["trunk.data"].write_bytes(extra)
    world.registry.add_base(manifest, paths, b"")
    base = load_base(manifest, world.blobs)
    assert base.tokens(np.zeros((1, 3, 8, 8), dtype=np.float32)).shape == (1, 4, 3)
