"""The agent's settings: ``agent.toml``, overridden by ``EDGELOOP__SECTION__KEY``, overridden by flags.

Unknown keys are errors, since a misspelt limit is a limit nobody set. Nothing is read at import; `load` is the
only door, and every fault leaves it as one `BadSettings` with the key and what to write instead.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from models.contracts.base import Identifier, Probability
from models.link import Address, Tls

_TOML_PLACE = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)$")


def _web_address(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # half an IPv6 address, or a port that is no number
        good = False
    if not good:
        raise ValueError(f"{text!r} is no address of a release server: write http://HOST:PORT or https://HOST")
    return text


Port = Annotated[int, Field(ge=1, le=65_535)]
WebAddress = Annotated[str, AfterValidator(_web_address)]


class BadSettings(ValueError):
    """The settings cannot be used. The text is one line that names the key."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AgentSection(_Section):
    """`hour_s` is the length of a period in seconds: 3600 in a plant, less in a demonstration.

    `queue_frames` is how many frames may wait for the inspector before the newest is answered UNSURE unseen.
    `hardware` is this box's kind, compared with a release's ``requires.hardware``.
    """

    edge: Identifier
    line: Identifier
    state_dir: Path
    hour_s: Annotated[int, Field(ge=1, le=86_400)] = 3600
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    seed: Annotated[int, Field(ge=0)] = 0
    queue_frames: Annotated[int, Field(ge=1, le=4096)] = 32
    hardware: str | None = None


class IdentitySection(_Section):
    """PEM files. The certificate's common name is the edge's name; the key signs its reports."""

    ca: Path
    certificate: Path
    key: Path


class MqttSection(_Section):
    host: str
    port: Port = 8883
    tls: bool = True


class ReleaseSection(_Section):
    """`root` is the factory's root.json, kept read-only: trust in every release starts there."""

    url: WebAddress
    root: Path
    channel: Identifier = "stable"
    poll_s: Annotated[float, Field(gt=0)] = 300.0
    spread_s: Annotated[float, Field(ge=0)] = 2.0


class SelectionSection(_Section):
    """How many bytes an hour of samples may take, the share that is pure random audit, the smallest probability."""

    bytes_per_hour: Annotated[int, Field(ge=1)] = 64 << 20
    audit_share: Probability = 0.3
    pi_min: Annotated[float, Field(gt=0, le=1)] = 0.02


class CascadeSection(_Section):
    """A gate in front of the line's model. `gate_line` is the line in whose name the gate is released.

    `deadline_ms` counts from the frame's capture; a part whose answer comes later is answered as `on_late` says:
    UNSURE, or the gate's own verdict. The line's model also sees `audit_share` of the parts that end at the gate.
    """

    gate_line: Identifier
    deadline_ms: Annotated[float, Field(gt=0, le=3_600_000, allow_inf_nan=False)]
    audit_share: Annotated[float, Field(gt=0, le=1)] = 0.02
    on_late: Literal["unsure", "gate"] = "unsure"


class SpoolSection(_Section):
    max_bytes: Annotated[int, Field(ge=1 << 20)] = 4 << 30
    ballast_bytes: Annotated[int, Field(ge=0)] = 64 << 20
    min_free_bytes: Annotated[int, Field(ge=0)] = 2 << 30


class UplinkSection(_Section):
    """`bytes_per_s` bounds image bytes over time; absent means no bound."""

    heartbeat_s: Annotated[float, Field(gt=0)] = 10.0
    bytes_per_s: Annotated[float, Field(gt=0)] | None = None


class JournalSection(_Section):
    path: Path | None = None


class StatusSection(_Section):
    """The local status page; `port` 0 turns it off."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 0


class CameraSection(_Section):
    """`kind` is ``folder`` or a name in the entry-point group ``edgeloop.cameras``; `options` are that kind's own."""

    name: Identifier
    kind: str
    options: dict[str, Any] = Field(default_factory=dict)
    silent_after_s: Annotated[float, Field(gt=0)] = 600.0


class AgentSettings(BaseSettings):
    """All of them. Build it with `load`."""

    model_config = SettingsConfigDict(
        env_prefix="EDGELOOP__",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    agent: AgentSection
    identity: IdentitySection
    mqtt: MqttSection
    release: ReleaseSection
    selection: SelectionSection = SelectionSection()
    cascade: CascadeSection | None = None
    spool: SpoolSection = SpoolSection()
    uplink: UplinkSection = UplinkSection()
    journal: JournalSection = JournalSection()
    status: StatusSection = StatusSection()
    cameras: list[CameraSection] = Field(min_length=1, max_length=64)

    @model_validator(mode="after")
    def _names_are_unique(self) -> AgentSettings:
        names = [camera.name for camera in self.cameras]
        if len(set(names)) != len(names):
            raise ValueError("two cameras share a name")
        return self

    @model_validator(mode="after")
    def _the_gate_is_another_line(self) -> AgentSettings:
        if self.cascade is not None and self.cascade.gate_line == self.agent.line:
            raise ValueError(f"cascade.gate_line: {self.agent.line} is this box's own line; name another")
        return self

    @property
    def broker(self) -> Address:
        """Where the broker is, with this box's identity unless TLS is off."""
        identity = self.identity
        tls = Tls(ca=identity.ca, certificate=identity.certificate, key=identity.key) if self.mqtt.tls else None
        return Address(host=self.mqtt.host, port=self.mqtt.port, tls=tls)


def _sources(config: Path | None) -> type[AgentSettings]:
    class FromFile(AgentSettings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            if config is None:
                return init_settings, env_settings
            return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=config)

    return FromFile


def load(config: Path | None = None, **flags: Any) -> AgentSettings:
    """Settings from a file, the environment and `flags` (section name to a table of keys), the last winning.

    Raises:
        BadSettings: the file is missing or no TOML, a key is unknown, missing or out of range.
    """
    if config is not None and not config.is_file():
        raise BadSettings(f"{config}: no such file; write one or pass --config FILE")
    try:
        return _sources(config)(**flags)
    except ValidationError as fault:
        first = fault.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "settings"
        raise BadSettings(
            f"{config or 'environment'}: {where}: {first['msg'].removeprefix('Value error, ')}"
        ) from fault
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise BadSettings(f"{config}: {_no_toml(fault, config)}") from fault
    except (ValueError, OSError) as fault:  # SettingsError is a ValueError
        raise BadSettings(f"{config or 'environment'}: {fault}") from fault


def _no_toml(fault: ValueError, config: Path | None) -> str:
    """Line number and fault; Python before 3.14 has the line in the text only."""
    if isinstance(fault, UnicodeDecodeError):
        line = fault.object[: fault.start].count(b"\n") + 1
        return f"line {line} is not UTF-8: save the file as UTF-8"
    text, place = str(fault), _TOML_PLACE.search(str(fault))
    if place is None or config is None:
        return f"not TOML: {text}"
    line = int(place["line"] or len(config.read_text(encoding="utf-8").splitlines()))
    return f"line {line} is not TOML: {text[: place.start()]}; correct it there"
