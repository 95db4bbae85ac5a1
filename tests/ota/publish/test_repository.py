"""What the publisher signs, what it refuses, and that repeating or interrupting it harms nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Targets

from models.contracts.base import canonical
from ota.client import ReleaseClient
from ota.errors import ConflictError, NotPublished, PublishError
from ota.keys import KeyFolder, OnlineSigners
from ota.repository import ReleaseRepository
from tests.ota.kit import (
    LINE,
    OTHER_LINE,
    Clock,
    CrashingFs,
    Plant,
    PowerCut,
    adapter_blobs,
    adapter_manifest,
    base_contents,
    base_manifest,
)
from tests.ota.stage import Server


def proposal(plant: Plant, release: int, **changes: Any) -> bytes:
    base = plant.repository.base_ref("nano-mono", 1).sha256
    manifest = adapter_manifest(release, base=base, **changes)
    return plant.repository.propose_adapter(manifest, adapter_blobs(release), plant.keys.signer("trainer"))


def check(plant: Plant, server: Server, tmp_path: Path, line: str = LINE) -> int:
    """What a new box would run."""
    server.show(plant.folder)
    client = ReleaseClient(
        folder=tmp_path / "box", root=plant.repository.root_bytes(), url=server.url, now=plant.clock, fs=plant.fs
    )
    return client.fetch(client.check(line, "stable")).channel.release


def test_publishing_again_changes_nothing(plant: Plant) -> None:
    version = plant.release(2)
    before = plant.everything()
    assert plant.release(2) == version
    assert plant.everything() == before


def test_every_publish_raises_the_timestamp_by_one(plant: Plant) -> None:
    before = plant.release(2)
    assert plant.release(3) == before + 1


def test_a_proposal_is_visible_to_nobody(plant: Plant) -> None:
    proposal(plant, 9)
    with pytest.raises(NotPublished):
        plant.repository.adapter_ref(LINE, 9)


def test_endorsing_twice_is_once(plant: Plant) -> None:
    made = proposal(plant, 9)
    version = plant.repository.endorse_adapter(LINE, made, plant.keys.signer("gate"))
    assert plant.repository.endorse_adapter(LINE, made, plant.keys.signer("gate")) == version


def test_a_stale_proposal_is_refused(plant: Plant) -> None:
    stale = proposal(plant, 9)
    plant.add_adapter(10)
    with pytest.raises(ConflictError, match="propose again"):
        plant.repository.endorse_adapter(LINE, stale, plant.keys.signer("gate"))


@pytest.mark.parametrize("key", ["gate", "channel"])
def test_a_proposal_that_is_not_the_trainers_is_refused(plant: Plant, key: str) -> None:
    base = plant.repository.base_ref("nano-mono", 1).sha256
    made = plant.repository.propose_adapter(adapter_manifest(9, base=base), adapter_blobs(9), plant.keys.signer(key))
    with pytest.raises(PublishError, match="1/2"):
        plant.repository.endorse_adapter(LINE, made, plant.keys.signer("gate"))


def test_a_proposal_may_not_drop_an_adapter(plant: Plant) -> None:
    def drop(targets: Targets) -> None:
        del targets.targets[f"adapter/{LINE}/r000001.manifest.json"]

    with pytest.raises(ConflictError, match="drops or changes"):
        plant.repository.endorse_adapter(LINE, _changed(plant, drop), plant.keys.signer("gate"))


def test_a_proposal_may_not_list_what_is_not_there(plant: Plant) -> None:
    def invent(targets: Targets) -> None:
        entry = targets.targets[f"adapter/{LINE}/r000001.head"].to_dict()
        entry["hashes"] = {"sha256": "0" * 64}
        path = f"adapter/{LINE}/r000011.head"
        targets.targets[path] = type(next(iter(targets.targets.values()))).from_dict(entry, path)

    with pytest.raises(PublishError, match="r000011"):
        plant.repository.endorse_adapter(LINE, _changed(plant, invent), plant.keys.signer("gate"))


def test_a_proposal_may_not_outlive_its_policy(plant: Plant) -> None:
    def stretch(targets: Targets) -> None:
        targets.expires = targets.expires.replace(year=2099)

    with pytest.raises(PublishError, match="outlives"):
        plant.repository.endorse_adapter(LINE, _changed(plant, stretch), plant.keys.signer("gate"))


@pytest.mark.parametrize("junk", [b"", b"{}", b"[1]", b"\xff" * 10])
def test_a_proposal_that_is_no_metadata_is_refused(plant: Plant, junk: bytes) -> None:
    with pytest.raises(PublishError, match="no TUF metadata"):
        plant.repository.endorse_adapter(LINE, junk, plant.keys.signer("gate"))


def test_a_release_number_is_taken_once(plant: Plant) -> None:
    with pytest.raises(ConflictError, match="other bytes"):
        proposal(plant, 1, model_version="another")


def test_a_blob_must_be_the_manifests(plant: Plant) -> None:
    base = plant.repository.base_ref("nano-mono", 1).sha256
    blobs = {**adapter_blobs(9), "head": b"another head"}
    with pytest.raises(PublishError, match=r"r000009\.head"):
        plant.repository.propose_adapter(adapter_manifest(9, base=base), blobs, plant.keys.signer("trainer"))


def test_an_adapter_needs_its_base(plant: Plant) -> None:
    manifest, trainer = adapter_manifest(9, base="0" * 64), plant.keys.signer("trainer")
    with pytest.raises(NotPublished, match="add the base"):
        plant.repository.propose_adapter(manifest, adapter_blobs(9), trainer)


def test_a_base_file_must_be_the_manifests(plant: Plant, tmp_path: Path) -> None:
    (tmp_path / "tower").write_bytes(base_contents(1)["tower.onnx"])
    (tmp_path / "trunk").write_bytes(b"not the trunk")
    files = {"tower": tmp_path / "tower", "trunk": tmp_path / "trunk"}
    with pytest.raises(PublishError, match=r"not the trunk\.onnx"):
        plant.repository.add_base(base_manifest(2), files, plant.keys.offline("base"), plant.keys.online())
    with pytest.raises(NotPublished):
        plant.repository.base_ref("nano-mono", 2)


def test_one_base_key_of_three_is_not_enough(plant: Plant, tmp_path: Path) -> None:
    files = {}
    for name, data in base_contents(2).items():
        files[name] = tmp_path / name
        files[name].write_bytes(data)
    with pytest.raises(PublishError, match="1/2"):
        plant.repository.add_base(base_manifest(2), files, plant.keys.offline("base")[:1], plant.keys.online())


def test_the_release_number_never_shrinks(plant: Plant) -> None:
    plant.release(3)
    with pytest.raises(ConflictError, match="higher number"):
        plant.release(2)


def test_a_number_means_one_model(plant: Plant) -> None:
    with pytest.raises(ConflictError, match="another model"):
        plant.release(1, adapter=2)


def test_a_revocation_is_for_ever(plant: Plant) -> None:
    bad = plant.repository.adapter_ref(LINE, 1).sha256
    plant.release(2, revoked=[bad], min_release=2)
    with pytest.raises(PublishError, match="for ever"):
        plant.release(3)
    with pytest.raises(PublishError, match="revokes"):
        plant.release(3, adapter=1, revoked=[bad], min_release=2)


def test_an_adapter_for_another_base_or_line_is_refused(plant: Plant) -> None:
    plant.add_base(2)
    with pytest.raises(PublishError, match="needs base"):
        plant.release(2, base_version=2)
    plant.add_adapter(1, line=OTHER_LINE)
    foreign = plant.channel(2).model_copy(update={"adapter": plant.repository.adapter_ref(OTHER_LINE, 1)})
    with pytest.raises(NotPublished):
        plant.repository.publish(foreign, plant.keys.online())


def test_a_wrong_channel_key_fails_at_the_publisher(plant: Plant) -> None:
    keys = plant.keys
    wrong = OnlineSigners(CryptoSigner.generate_ed25519(), keys.signer("snapshot"), keys.signer("timestamp"))
    before = plant.everything()
    with pytest.raises(PublishError, match=f"channel-{LINE}"):
        plant.repository.publish(plant.channel(2), wrong)
    assert not [path for path in set(plant.everything()) - set(before) if path.startswith("metadata")]


def test_an_unknown_line_is_not_published(plant: Plant) -> None:
    with pytest.raises(NotPublished):
        plant.repository.current_channel("nowhere", "stable")


def test_current_channel_is_none_before_the_first_release(plant: Plant) -> None:
    assert plant.repository.current_channel(OTHER_LINE, "stable") is None
    found = plant.repository.current_channel(LINE, "stable")
    assert found is not None
    assert found.release == 1


def test_a_line_is_added_later(plant: Plant, server: Server, tmp_path: Path) -> None:
    plant.repository.add_line("glass", plant.keys)
    plant.repository.add_line("glass", plant.keys)
    assert plant.repository.lines() == [LINE, OTHER_LINE, "glass"]
    plant.add_adapter(1, line="glass")
    plant.release(1, line="glass")
    assert check(plant, server, tmp_path, "glass") == 1


def test_a_repository_is_made_once(plant: Plant) -> None:
    with pytest.raises(ConflictError, match="already"):
        plant.repository.create(plant.keys, [LINE])


def test_renewing_keeps_every_online_role_alive(plant: Plant, server: Server, tmp_path: Path) -> None:
    for _ in range(20):
        plant.clock.forward(hours=12)
        plant.repository.renew_timestamp(plant.keys.online())
        if (plant.clock() - plant.repository.expiries()[f"adapter-{LINE}"]).days > -3:
            renewal = plant.repository.propose_renewal(LINE, plant.keys.signer("trainer"))
            plant.repository.endorse_adapter(LINE, renewal, plant.keys.signer("gate"))
    late = {role for role, expires in plant.repository.expiries().items() if expires <= plant.clock()}
    assert late == {f"adapter-{OTHER_LINE}"}
    assert check(plant, server, tmp_path) == 1


def test_the_metadata_has_the_real_thresholds(plant: Plant) -> None:
    root = plant.repository._files.root()
    targets = plant.repository._files.role("targets")
    assert {name: (role.threshold, len(role.keyids)) for name, role in root.roles.items()} == {
        "root": (2, 3), "targets": (2, 3), "snapshot": (1, 1), "timestamp": (1, 1)
    }  # fmt: skip
    delegated = targets.delegations.roles
    assert (delegated["base"].threshold, len(delegated["base"].keyids)) == (2, 3)
    assert (delegated[f"adapter-{LINE}"].threshold, len(delegated[f"adapter-{LINE}"].keyids)) == (2, 2)
    assert all(role.terminating for role in delegated.values())
    assert not targets.targets


def test_a_crash_anywhere_in_create_is_finished_by_repeating(tmp_path: Path, keys: KeyFolder) -> None:
    def create(folder: Path, fs: CrashingFs) -> None:
        ReleaseRepository(folder, now=Clock(), fs=fs).create(keys, [LINE])

    steps = _steps(lambda fs: create(tmp_path / "whole", fs))
    for step in range(steps):
        folder = tmp_path / str(step)
        with pytest.raises(PowerCut):
            create(folder, CrashingFs(step, after=bool(step % 2)))
        if not (folder / "metadata" / "timestamp.json").exists():
            create(folder, CrashingFs())
        assert ReleaseRepository(folder, now=Clock()).lines() == [LINE]


def test_a_crash_anywhere_in_publish_shows_the_old_or_the_new_and_is_finished_by_repeating(
    plant: Plant, server: Server, tmp_path: Path
) -> None:
    import shutil

    template = shutil.copytree(plant.folder, tmp_path / "template")
    steps = _steps(lambda fs: _publish(Plant(_copy(template, tmp_path / "whole"), plant.keys, fs=fs)))
    assert steps >= 8
    for step in range(steps):
        for after in (False, True):
            crashed = Plant(_copy(template, tmp_path / f"{step}{after}"), plant.keys, fs=CrashingFs(step, after=after))
            with pytest.raises(PowerCut):
                _publish(crashed)
            healthy = Plant(crashed.folder, plant.keys)
            assert check(healthy, server, tmp_path / f"{step}{after}-before") in (1, 2)
            version = _publish(healthy)
            assert check(healthy, server, tmp_path / f"{step}{after}-after") == 2
            assert _publish(healthy) == version


def _publish(plant: Plant) -> int:
    return plant.repository.publish(plant.channel(2), plant.keys.online())


def _copy(source: Path, target: Path) -> Path:
    import shutil

    return Path(shutil.copytree(source, target))


def _steps(act: Any) -> int:
    fs = CrashingFs()
    act(fs)
    return fs.calls


def _changed(plant: Plant, change: Any) -> bytes:
    """The trainer's next proposal with a change only a stolen trainer key could sign."""
    metadata = Metadata[Targets].from_bytes(plant.repository.propose_renewal(LINE, plant.keys.signer("trainer")))
    change(metadata.signed)
    metadata.signatures.clear()
    metadata.sign(plant.keys.signer("trainer"))
    assert canonical(metadata.to_dict())
    return metadata.to_bytes()
