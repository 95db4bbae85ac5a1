from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ota.keys import KeyFault, KeyFolder, OnlineSigners, ceremony, inventory, load_offline, load_online
from tests.ota.kit import LINE, PASSPHRASE


def test_a_ceremony_makes_every_key_with_its_mode(keys: KeyFolder) -> None:
    found = {path.name for path in keys.folder.rglob("*.pem")}
    assert found == {
        *(f"{role}-{n}.pem" for role in ("root", "targets", "base") for n in (1, 2, 3)),
        *(f"{role}.pem" for role in ("trainer", "gate", "channel", "snapshot", "timestamp")),
    }
    assert {path.stat().st_mode & 0o777 for path in keys.folder.rglob("*.pem")} == {0o400}


def test_keys_sign_what_their_public_half_verifies(keys: KeyFolder) -> None:
    signers = [*keys.offline("root"), keys.signer("gate")]
    for signer in signers:
        signer.public_key.verify_signature(signer.sign(b"data"), b"data")
    assert len({signer.public_key.keyid for signer in signers}) == 4


def test_the_offline_keys_are_encrypted(keys: KeyFolder) -> None:
    path = keys.folder / "offline" / "root-1.pem"
    assert b"ENCRYPTED" in path.read_bytes()
    with pytest.raises(KeyFault, match="passphrase"):
        load_offline(path, "wrong passphrase")
    with pytest.raises(KeyFault, match="unencrypted"):
        load_online(path)


def test_keys_are_never_overwritten(keys: KeyFolder) -> None:
    before = {path: path.read_bytes() for path in keys.folder.rglob("*.pem")}
    with pytest.raises(KeyFault, match="never overwritten"):
        ceremony(keys.folder, lines=[LINE], passphrase=PASSPHRASE)
    assert {path: path.read_bytes() for path in keys.folder.rglob("*.pem")} == before


def test_a_ceremony_that_was_interrupted_is_not_mixed_with_a_new_one(keys: KeyFolder, tmp_path: Path) -> None:
    (tmp_path / "offline").mkdir()
    shutil.copy(keys.folder / "offline" / "root-1.pem", tmp_path / "offline")
    with pytest.raises(KeyFault, match=r"root-1\.pem exists"):
        ceremony(tmp_path, lines=[LINE], passphrase=PASSPHRASE)


def test_a_short_passphrase_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(KeyFault, match="at least 8"):
        ceremony(tmp_path / "k", lines=[LINE], passphrase="short")
    assert not (tmp_path / "k").exists()


def test_a_key_others_can_read_is_refused(keys: KeyFolder, tmp_path: Path) -> None:
    path = Path(shutil.copy(keys.folder / "online" / "gate.pem", tmp_path))
    path.chmod(0o644)
    with pytest.raises(KeyFault, match="chmod 0400"):
        load_online(path)


@pytest.mark.parametrize("content", [b"", b"not a key"])
def test_a_damaged_key_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "gate.pem"
    path.write_bytes(content)
    path.chmod(0o400)
    with pytest.raises(KeyFault, match="cannot open"):
        load_online(path)


def test_a_missing_key_says_which(tmp_path: Path) -> None:
    with pytest.raises(KeyFault, match=r"channel\.pem"):
        OnlineSigners.load(tmp_path)
    with pytest.raises(KeyFault, match="no key inventory"):
        inventory(tmp_path)


def test_the_passphrase_is_in_no_representation(keys: KeyFolder) -> None:
    assert PASSPHRASE not in repr(keys)
    assert PASSPHRASE not in (keys.folder / "keys.json").read_text()
    assert "PRIVATE" not in (keys.folder / "keys.json").read_text()
