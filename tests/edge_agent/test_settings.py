from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.settings import BadSettings, load

MINIMAL = """
[agent]
edge = "edge-1"
line = "cells"
state_dir = "state"
[identity]
ca = "ca.pem"
certificate = "edge.pem"
key = "edge.key"
[mqtt]
host = "broker"
port = 8883
[release]
url = "https://releases"
root = "root.json"
[[cameras]]
name = "cam-1"
kind = "folder"
options = { folder = "in" }
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return path


def test_defaults_complete_a_minimal_file(tmp_path: Path) -> None:
    settings = load(written(tmp_path, MINIMAL))
    assert (settings.agent.hour_s, settings.agent.threads, settings.release.channel) == (3600, 1, "stable")
    assert (settings.selection.audit_share, settings.selection.pi_min) == (0.3, 0.02)
    assert settings.cameras[0].options == {"folder": "in"}
    assert settings.broker.tls is not None
    assert settings.status.port == 0


def test_the_environment_wins_over_the_file_and_flags_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, MINIMAL)
    monkeypatch.setenv("EDGELOOP__MQTT__PORT", "1884")
    monkeypatch.setenv("EDGELOOP__SELECTION__AUDIT_SHARE", "0.5")
    settings = load(path)
    assert (settings.mqtt.port, settings.mqtt.host, settings.selection.audit_share) == (1884, "broker", 0.5)
    assert load(path, mqtt={"port": 1999}).mqtt.port == 1999


def test_without_tls_there_is_no_identity_at_the_broker(tmp_path: Path) -> None:
    path = written(tmp_path, MINIMAL.replace("port = 8883", "port = 1883\ntls = false"))
    assert load(path).broker.tls is None


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (("hour_s = 1", ""), None),
        (('edge = "edge-1"', 'edge = "Edge One"'), "agent.edge"),
        (('edge = "edge-1"', 'edge = "edge-1"\ncolour = "red"'), "agent.colour"),
        (("port = 8883", "port = 99999"), "mqtt.port"),
        (('kind = "folder"', ""), "cameras.0.kind"),
        (("[mqtt]", "[selections]\na = 1\n[mqtt]"), "selections"),
        (('host = "broker"', ""), "mqtt.host"),
        (("[agent]", "[agent"), "agent.toml"),
    ],
)
def test_a_fault_names_its_key(tmp_path: Path, change: tuple[str, str], names: str | None) -> None:
    path = written(tmp_path, MINIMAL.replace(*change))
    if names is None:
        load(path)
        return
    with pytest.raises(BadSettings, match=names) as caught:
        load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"[agent]\n\n[mqtt\n", "line 3 is not TOML: Expected ']' at the end of a table declaration"),
        (b'[agent]\nedge = """x\ny', "line 3 is not TOML: Unterminated string"),
        (b"[agent]\nedge = \n", "line 2 is not TOML: Invalid value"),
        (b"[agent]\na = 1\na = 2\n", "line 3 is not TOML: Cannot overwrite a value"),
        (b"[agent]\nedge = '\xff'\n", "line 2 is not UTF-8"),
    ],
)
def test_a_file_that_is_no_toml_is_one_line_with_file_and_line_number(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_bytes(data)
    with pytest.raises(BadSettings) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: {says}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["ftp://releases", "file:///srv/releases", "releases:8090", "https://", "/srv/releases", "http://[::1"]
)
def test_releases_come_by_http_only(tmp_path: Path, url: str) -> None:
    path = written(tmp_path, MINIMAL.replace("https://releases", url))
    with pytest.raises(BadSettings) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path}: release.url: {url!r} is no address of a release server: write http://HOST:PORT or https://HOST"
    )


@pytest.mark.parametrize("url", ["http://127.0.0.1:8090", "https://releases.plant.example/cells", "HTTPS://releases"])
def test_an_address_of_a_release_server_is_kept_as_written(tmp_path: Path, url: str) -> None:
    assert load(written(tmp_path, MINIMAL.replace("https://releases", url))).release.url == url


def test_two_cameras_may_not_share_a_name(tmp_path: Path) -> None:
    camera = MINIMAL[MINIMAL.index("[[cameras]]") :]
    with pytest.raises(BadSettings, match="share a name"):
        load(written(tmp_path, MINIMAL + camera))


def test_a_missing_file_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="no such file"):
        load(tmp_path / "nowhere.toml")


CASCADE = '[cascade]\ngate_line = "cells-gate"\ndeadline_ms = 3000\n'


def test_a_cascade_is_off_until_its_section_is_written(tmp_path: Path) -> None:
    assert load(written(tmp_path, MINIMAL)).cascade is None
    section = load(written(tmp_path, MINIMAL + CASCADE)).cascade
    assert section is not None
    assert (section.gate_line, section.audit_share, section.on_late) == ("cells-gate", 0.02, "unsure")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (('gate_line = "cells-gate"', ""), "cascade.gate_line"),
        (('"cells-gate"', '"cells"'), "this box's own line"),
        (("deadline_ms = 3000", ""), "cascade.deadline_ms"),
        (("deadline_ms = 3000", "deadline_ms = 0"), "cascade.deadline_ms"),
        (("deadline_ms = 3000", "deadline_ms = 3000\naudit_share = 0"), "cascade.audit_share"),
        (("deadline_ms = 3000", 'deadline_ms = 3000\non_late = "pass"'), "cascade.on_late"),
        (("deadline_ms = 3000", "deadline_ms = 3000\ndead_line = 1"), "cascade.dead_line"),
    ],
)
def test_a_fault_in_the_cascade_names_its_key(tmp_path: Path, change: tuple[str, str], names: str) -> None:
    with pytest.raises(BadSettings, match=names):
        load(written(tmp_path, MINIMAL + CASCADE.replace(*change)))
