from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.checkpoint import Checkpoint
from models.disk import RealFs


class Counting(RealFs):
    writes = 0
    fail = False

    def write_new(self, path: Path, data: bytes) -> None:
        self.writes += 1
        if self.fail:
            raise OSError(28, "No space left on device")
        super().write_new(path, data)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "c.json").save({"a": {"b": [1, 2.5, None]}})
    assert Checkpoint(tmp_path / "c.json").load() == {"a": {"b": [1, 2.5, None]}}


def test_nothing_is_written_when_nothing_changed(tmp_path: Path) -> None:
    fs = Counting()
    checkpoint = Checkpoint(tmp_path / "c.json", fs=fs)
    for value in (1, 1, 2):
        checkpoint.save({"a": value})
    assert fs.writes == 2


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b'"text"', b'{"a": NaN}', b"\xff\xfe"])
def test_a_damaged_file_is_set_aside(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(data)
    assert Checkpoint(path).load() == {}
    assert (tmp_path / "c.damaged").read_bytes() == data
    assert not path.exists()


def test_a_full_disk_keeps_the_old_content_and_tries_again(tmp_path: Path) -> None:
    fs = Counting()
    checkpoint = Checkpoint(tmp_path / "c.json", fs=fs)
    checkpoint.save({"a": 1})
    fs.fail = True
    with pytest.raises(OSError, match="No space"):
        checkpoint.save({"a": 2})
    fs.fail = False
    checkpoint.save({"a": 2})
    assert Checkpoint(tmp_path / "c.json").load() == {"a": 2}
