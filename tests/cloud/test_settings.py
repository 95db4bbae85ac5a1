"""Settings: file below environment below flags; what is wrong is one line that names the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloud.settings import BadSettings, load

GOOD = """
[cloud]
state_dir = "state"
[objects]
endpoint = "127.0.0.1:9000"
access_key = "a"
secret_key = "very-secret"
[release]
repository = "repo"
keys = "/keys"
[web]
port = 8000
[[web.tokens]]
name = "ann"
role = "admin"
sha256 = "%s"
""" % ("a" * 64)


def write(folder: Path, text: str = GOOD) -> Path:
    path = folder / "cloud.toml"
    path.write_text(text)
    return path


def test_defaults_paths_and_tokens(tmp_path: Path) -> None:
    settings = load(write(tmp_path))
    assert settings.cloud.state_dir == tmp_path / "state"
    assert settings.release.keys == Path("/keys")
    assert settings.database_url == f"sqlite:///{tmp_path}/state/cloud.db"
    assert settings.web.tokens[0].role == "admin"
    assert not settings.secure_cookies
    assert "very-secret" not in repr(settings)


def test_environment_beats_file_and_flags_beat_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELOOP__WEB__PORT", "8001")
    monkeypatch.setenv("EDGELOOP__OBJECTS__SECRET_KEY", "from-env")
    monkeypatch.setenv("EDGELOOP__WEB__PUBLIC_URL", "https://edgeloop.plant")
    settings = load(write(tmp_path))
    assert settings.web.port == 8001
    assert settings.web.tokens[0].name == "ann"
    assert settings.objects.secret_key.get_secret_value() == "from-env"
    assert settings.secure_cookies
    flagged = load(write(tmp_path), flags={"web": {"port": 8002, "host": None}})
    assert (flagged.web.port, flagged.web.host) == (8002, "127.0.0.1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "\n[ingest]\nlimit = 3\n", "unknown key ingest.limit"),
        (GOOD + "\n[weather]\nsun = true\n", "unknown key weather"),
        (GOOD.replace('state_dir = "state"', ""), "cloud.state_dir"),
        (GOOD.replace("port = 8000", 'port = "many"'), "web.port"),
        (GOOD.replace('role = "admin"', 'role = "king"'), "web.tokens.0.role"),
        ("= broken", "is not TOML"),
    ],
)
def test_faults_name_the_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadSettings) as caught:
        load(write(tmp_path, text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_flag_and_a_missing_file_say_so(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="port"):
        load(write(tmp_path), flags={"web": {"port": 99999}})
    with pytest.raises(BadSettings, match="--config"):
        load(tmp_path / "none.toml")
