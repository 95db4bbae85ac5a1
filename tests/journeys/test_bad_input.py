"""Bad input, item by item: where it is tested, and here what no room tests by itself.

Every line below names a test that exists (one of the tests here sees to that). A test's own name says what it promises.

unreadable frame
    tests/edge_agent/test_pipeline.py::test_what_cannot_be_judged_is_unsure_and_kept
    tests/edge_agent/cameras/test_folder.py::test_an_empty_file_is_a_bad_read_and_set_aside
    tests/models/runtime/test_image.py::test_a_truncated_image_is_unreadable
    tests/cloud/ingest/test_uploads.py::test_unreadable_bytes_are_stored_as_octets
    tests/cloud/test_web.py::test_an_unreadable_image_is_a_download
    tests/cloud/trainer/test_service.py::test_an_unreadable_sample_is_left_out_and_counted
    tests/journeys/test_loop.py::test_nothing_is_lost_whatever_dies
wrong size
    tests/models/runtime/test_inspector.py::test_a_region_outside_the_frame_is_wrong_size
    tests/edge_agent/spool/test_spool.py::test_an_image_the_wire_cannot_carry_is_refused
    tests/journeys/test_bad_input.py::test_a_frame_of_the_wrong_size_is_unsure_and_kept
    tests/journeys/test_bad_input.py::test_a_frame_of_any_shape_gets_an_answer
all-black frame
    tests/models/runtime/test_image.py::test_exposure_says_which_frames_cannot_be_judged
    tests/edge_agent/test_pipeline.py::test_what_cannot_be_judged_is_unsure_and_kept
    tests/cloud/gate/test_real_graphs.py::test_images_that_cannot_be_judged_go_to_a_person
NaN scores
    tests/models/runtime/test_inspector.py::test_nan_scores_are_a_result
    tests/edge_agent/test_decision.py::test_unusable_scores_are_unsure_with_a_reason
    tests/journeys/test_bad_input.py::test_nan_scores_are_unsure_and_kept
broker down at start, or goes away
    tests/models/link/test_mqtt.py::test_a_broker_that_is_not_there_at_start
    tests/models/link/test_mqtt.py::test_a_broker_that_dies_is_found_again
    tests/edge_agent/uplink/test_uplink.py::test_the_broker_dies_and_comes_back
    tests/journeys/test_loop.py::test_nothing_is_lost_whatever_dies
object store down at start, or goes away
    tests/cloud/test_cli.py::test_the_process_serves_and_stops_gracefully
    tests/cloud/ingest/test_uploads.py::test_a_store_that_is_down_makes_it_wait_and_no_byte_is_resent
    tests/cloud/ingest/test_with_edge.py::test_every_accepted_sample_arrives_once_whatever_the_channel_and_the_store_do
    tests/cloud/test_web.py::test_a_store_that_is_away_is_503
    tests/cloud/trainer/test_service.py::test_a_store_that_is_away_delays_and_loses_nothing
    tests/journeys/test_loop.py::test_nothing_is_lost_whatever_dies
full spool
    tests/edge_agent/spool/test_spool.py::test_debug_goes_first_and_flagged_stays
    tests/edge_agent/spool/test_spool.py::test_a_full_disk_thins_too
    tests/edge_agent/spool/test_spool.py::test_a_sample_that_can_never_fit_is_declared
    tests/edge_agent/test_pipeline.py::test_a_spool_that_cannot_take_it_does_not_stop_inspection
    tests/journeys/test_bad_input.py::test_what_a_full_spool_gave_up_is_in_the_clouds_account
bad adapter: wrong base, flipped bit, NaN weights
    tests/edge_agent/updater/test_updater.py::test_an_adapter_for_another_base_never_runs
    tests/ota/client/test_attacks.py::test_35_an_adapter_for_another_base
    tests/edge_agent/test_app.py::test_a_falsified_blob_never_runs_and_inspection_goes_on
    tests/ota/client/test_attacks.py::test_01_arbitrary_bytes_of_the_same_length
    tests/edge_agent/updater/test_updater.py::test_a_bad_release_never_runs
    tests/models/runtime/test_inspector.py::test_nan_weights_are_refused
    tests/cloud/gate/test_service.py::test_files_a_box_would_refuse_are_refused_in_words
expired release
    tests/ota/client/test_attacks.py::test_08_to_10_freeze_stops_updating
    tests/edge_agent/updater/test_updater.py::test_trouble_is_told_once_and_inspection_goes_on
    tests/journeys/test_bad_input.py::test_a_release_the_box_cannot_trust_is_told_and_the_old_one_goes_on
unsigned release
    tests/ota/client/test_attacks.py::test_02_03_signed_by_an_unknown_key
    tests/ota/client/test_attacks.py::test_40_the_trainers_key_alone
    tests/cloud/rollout/test_service.py::test_what_was_not_signed_or_not_accepted_is_not_released
    tests/journeys/test_bad_input.py::test_a_release_the_box_cannot_trust_is_told_and_the_old_one_goes_on
label for an unknown sample
    tests/cloud/labels/test_service.py::test_what_does_not_exist_is_said_clearly
    tests/journeys/test_loop.py::test_nothing_is_lost_whatever_dies
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from cloud.fleet.service import FleetService
from edge_agent.spool.sample import Accepted
from edge_agent.spool.spool import Limits, Spool
from edge_agent.uplink.protocol import Protocol
from edge_agent.uplink.settings import UplinkSettings
from models.contracts.control import ReportReason, UpdateState
from models.contracts.sample import CannotJudge, Stratum, Verdict
from models.contracts.uplink import Priority
from models.runtime.inspector import LineModel, inspect
from ota.keys import KeyFolder, ceremony
from ota.repository import ReleaseRepository
from simulators.camera import encode_png
from tests.cloud.ingest import test_with_edge as channel
from tests.cloud.ingest.test_records import heartbeat
from tests.cloud.kit import Plant as Cloud
from tests.edge_agent.spool.envelopes import Clock, builder
from tests.edge_agent.static import served
from tests.edge_agent.test_app import Plant, reports, until
from tests.edge_agent.test_pipeline import Bench
from tests.models.runtime.tiny import tiny_base, tiny_release

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"^    (tests/\S+\.py)::(test_\w+)$", re.MULTILINE)


def test_every_test_named_above_exists() -> None:
    named = NAMED.findall(__doc__ or "")
    assert len(named) == (__doc__ or "").count("::")
    missing = [f"{file}::{name}" for file, name in named if f"def {name}(" not in (ROOT / file).read_text()]
    assert not missing


def kept_unjudged(change: Callable[[LineModel], LineModel]) -> tuple[Bench, CannotJudge | None]:
    """One good frame through a model that was changed; it must be answered UNSURE and kept with certainty."""
    bench = Bench()
    model = bench.inspector.current
    assert model is not None
    bench.inspector.swap(change(model))
    frame = bench.belt.frame()
    bench.pipeline.process(frame)
    ((_, verdict),) = bench.line.signals
    ((meta, image, _),) = bench.spool.samples
    assert (verdict, meta.decision.verdict, image) == (Verdict.UNSURE, Verdict.UNSURE, frame.data)
    assert (meta.selection.stratum, meta.selection.pi_select) == (Stratum.CANNOT_JUDGE, 1.0)
    assert bench.meter.counts().pipeline_faults == 0
    return bench, meta.decision.cannot_judge


def test_a_frame_of_the_wrong_size_is_unsure_and_kept() -> None:
    """The line's region of interest leaves nothing of it."""

    def with_region(model: LineModel) -> LineModel:
        return replace(model, manifest=model.manifest.model_copy(update={"roi": (0.9999, 0.9999, 0.0001, 0.0001)}))

    bench, reason = kept_unjudged(with_region)
    assert reason is CannotJudge.WRONG_SIZE
    assert bench.journal.rows[0]["cannot_judge"] == "wrong_size"


def test_nan_scores_are_unsure_and_kept() -> None:
    def with_nan(model: LineModel) -> LineModel:
        return replace(model, head=replace(model.head, weight=np.full_like(model.head.weight, np.nan)))

    bench, reason = kept_unjudged(with_nan)
    assert reason is CannotJudge.BAD_SCORES
    json.dumps(bench.journal.rows[0], allow_nan=False)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2000), (2000, 1), (2, 3, 3), (5000, 7)])
def test_a_frame_of_any_shape_gets_an_answer(shape: tuple[int, ...]) -> None:
    bench = Bench()
    pixels = np.random.default_rng(1).integers(40, 200, shape, dtype=np.uint8)
    model = bench.inspector.current
    assert model is not None
    found = inspect(model, pixels)
    assert (found.probabilities is None) == (found.reason is not None)
    bench.pipeline.process(bench.belt.frame(data=encode_png(pixels)))
    assert len(bench.line.signals) == len(bench.journal.rows) == 1
    assert bench.meter.counts().pipeline_faults == 0


def test_what_a_full_spool_gave_up_is_in_the_clouds_account(tmp_path: Path) -> None:
    """Days without a network: the spool thins, says so, and the cloud's account closes without a gap."""
    rng, clock, parts = random.Random(5), Clock(), 60
    (tmp_path / "cloud").mkdir()
    cloud = Cloud(tmp_path / "cloud")
    limits = Limits(max_bytes=100_000, ballast_bytes=0, min_free_bytes=0)
    with Spool(tmp_path / "spool", edge="edge-1", now=clock.now, mono=clock.mono, rng=rng, limits=limits) as spool:
        for _ in range(parts):
            image = rng.randbytes(4000)
            assert isinstance(spool.put(builder(image, rng), image, Priority.HARD), Accepted)
        assert spool.account().pending < parts
        protocol = Protocol(edge="edge-1", store=spool, settings=UplinkSettings(), rng=rng)
        protocol.on_connection(True, 0.0)
        protocol.on_ingest(channel.STATE, 0.0)
        for _ in range(3000):
            channel.step(cloud, protocol, clock, rng, 0.0)
            if spool.account().pending == 0 and not spool.records_due(1):
                break
        cloud.send("hb", heartbeat(epoch=spool.epoch, max_seq=spool.account().max_seq))
        fleet = FleetService(begin=cloud.begin, reads=cloud.reads, now=cloud.clock)
        (account,) = fleet.conservation("cells").accounts
        assert (account.missing, account.pending, set(account.lost)) == ([], 0, {"thinned"})
        assert account.stored + account.lost["thinned"] == parts
        assert fleet.conservation("cells").holds
    cloud.engine.dispose()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyFolder:
    return ceremony(tmp_path_factory.mktemp("keys"), lines=["cells"], passphrase="correct horse battery")


@pytest.fixture
def plant(tmp_path: Path, keys: KeyFolder) -> Iterator[Plant]:
    """A signed repository over HTTP with release 1, and one box's files."""
    repository = ReleaseRepository(tmp_path / "repository", now=lambda: datetime.now(UTC))
    repository.create(keys, ["cells"])
    base = tiny_base()
    files = {file.name: tmp_path / file.name for file in base.manifest.files}
    for file in base.manifest.files:
        files[file.name].write_bytes(base.files[file.sha256])
    repository.add_base(base.manifest, files, keys.offline("base"), keys.online())
    with served(tmp_path / "repository") as stage:
        made = Plant(tmp_path, keys, stage)
        made.publish(1, tiny_release(1), parts=0)
        yield made


def expire(plant: Plant) -> None:
    """Signed by the right key, but so long ago that it has expired."""
    long_ago = datetime.now(UTC) - timedelta(days=400)
    ReleaseRepository(plant.folder / "repository", now=lambda: long_ago).renew_timestamp(plant.keys.online())


def strip(plant: Plant) -> None:
    """The newest timestamp without its signature."""
    document = json.loads((plant.folder / "repository/metadata/timestamp.json").read_bytes())
    plant.stage.lies["metadata/timestamp.json"] = json.dumps({**document, "signatures": []}).encode()


@pytest.mark.parametrize(
    ("spoil", "reason", "alarms"), [(expire, ReportReason.EXPIRED, 0), (strip, ReportReason.SIGNATURE, 1)]
)
def test_a_release_the_box_cannot_trust_is_told_and_the_old_one_goes_on(
    plant: Plant, spoil: Callable[[Plant], None], reason: ReportReason, alarms: int
) -> None:
    agent = plant.agent()
    agent.start()
    try:
        until(lambda: agent.updater.state is UpdateState.COMMITTED, "release 1")
        name, lies = "metadata/timestamp.json", plant.stage.lies
        lies[name] = before = (plant.folder / "repository" / name).read_bytes()  # the box sees all of it at once
        plant.publish(2, tiny_release(2, seed=2), parts=0)
        spoil(plant)
        if lies[name] is before:
            del lies[name]
        until(lambda: reports(agent)[-1].reason == reason, "the reason in a signed report")
        assert agent.updater.trouble
        assert (agent.updater.security_faults > 0) == bool(alarms)
        plant.drop(1)
        until(plant.journal, "inspection goes on")
        assert (plant.journal()[0]["release"], plant.journal()[0]["cannot_judge"]) == (1, None)
        plant.stage.lies.clear()
        plant.repository.renew_timestamp(plant.keys.online())
        until(lambda: agent.inspector.current.release == 2, "the honest bytes")
    finally:
        agent.stop()
