"""Every setting of the cloud, in one place: TOML file < environment ``EDGELOOP__SECTION__KEY`` < flags.

Unknown keys are errors. Nothing here opens, connects or creates: `bootstrap` does. Secrets may come from the
environment, and are never printed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from cloud.gate.settings import GateSettings
from cloud.rollout.settings import RolloutDefaults
from models.contracts.base import Identifier, Sha256, Text
from models.contracts.chunk import MAX_CHUNK_BYTES, MIN_CHUNK_BYTES
from models.contracts.uplink import MAX_SAMPLE_BYTES

Role = Literal["viewer", "labeller", "operator", "admin"]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class BadSettings(ValueError):
    """The configuration cannot be used. The text is one line that says which key and what to write."""


class Section(BaseModel):
    """A table of the file. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CloudSection(Section):
    """`state_dir` holds the database, staging, landing copies, the blob cache and the session key."""

    state_dir: Path


class DatabaseSection(Section):
    """`url` is ``sqlite:///path`` or ``postgresql+psycopg://...``; absent means ``cloud.db`` in the state folder."""

    url: SecretStr | None = None


class ObjectsSection(Section):
    """The S3 server. `endpoint` is host:port without a scheme."""

    endpoint: str
    bucket: str = "edgeloop"
    access_key: SecretStr
    secret_key: SecretStr
    secure: bool = False
    ca: Path | None = None
    region: str = "us-east-1"
    timeout_s: Seconds = 5.0


class MqttSection(Section):
    """The broker. With `tls` (the default) `ca`, `certificate` and `key` are PEM files of the cloud's identity."""

    host: str
    port: int = Field(default=8883, ge=1, le=65_535)
    tls: bool = True
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    client_id: Identifier = "edgeloop-cloud"


class WebToken(Section):
    """A person or a program. `sha256` is the digest of the token: the token itself is nowhere."""

    name: Text
    role: Role
    sha256: Sha256


class WebSection(Section):
    """`public_url` is what browsers type; https makes the session cookie Secure. `port` 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    public_url: str | None = None
    session_hours: Seconds = 12.0
    tokens: list[WebToken] = Field(default_factory=list)


class IngestSection(Section):
    """Limits of taking samples in.

    `edge_credit_bytes` one box may have under way, `staging_bytes` all together; `landing_keep_s` is how long a synced
    local copy outlives the upload to the object store (0: none, for a store that syncs every write); a staged upload
    nobody continues is forgotten after `staging_keep_s`.
    """

    edge_credit_bytes: int = Field(default=1 << 20, ge=MAX_CHUNK_BYTES)
    staging_bytes: int = Field(default=256 << 20, ge=MAX_CHUNK_BYTES)
    sample_bytes: int = Field(default=MAX_SAMPLE_BYTES, ge=1, le=MAX_SAMPLE_BYTES)
    chunk_bytes: int = Field(default=MAX_CHUNK_BYTES, ge=MIN_CHUNK_BYTES, le=MAX_CHUNK_BYTES)
    unsolicited_bytes: int = Field(default=MAX_CHUNK_BYTES, ge=0, le=MAX_CHUNK_BYTES)
    open_uploads: int = Field(default=64, ge=1)
    retry_after_s: int = Field(default=5, ge=1, le=3600)
    landing_keep_s: float = Field(default=3600.0, ge=0)
    staging_keep_s: Seconds = 86_400.0
    dead_letters: int = Field(default=1000, ge=1)


class ReviewSection(Section):
    """`estimate_share` of the stored samples, on average, is drawn by a coin for the queue that estimates accuracy."""

    estimate_share: Share = 0.3
    seed: int = 0


class ReleaseSection(Section):
    """`repository` is the TUF folder, `keys` the folder of the online keys ``<role>.pem`` this process may use."""

    repository: Path
    keys: Path
    renew_timestamp_s: Seconds = 900.0
    tick_s: Seconds = 2.0


class TrainingSection(Section):
    """When a line learns: every hour of the line with at least `min_new_labels` labels it has not learned from."""

    tick_s: Seconds = 2.0
    min_new_labels: int = Field(default=8, ge=1)
    options: dict[str, Any] = Field(default_factory=dict)


class WorkerSection(Section):
    """A worker renews its lease three times in `lease_s`; a job of a dead worker is taken over after it."""

    lease_s: Seconds = 60.0
    poll_s: Seconds = 0.5
    threads: int = Field(default=2, ge=1)


class CloudSettings(BaseSettings):
    """The whole file. See `load`."""

    model_config = SettingsConfigDict(
        env_prefix="EDGELOOP__", env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    cloud: CloudSection
    database: DatabaseSection = DatabaseSection()
    objects: ObjectsSection
    mqtt: MqttSection | None = None
    web: WebSection = WebSection()
    ingest: IngestSection = IngestSection()
    review: ReviewSection = ReviewSection()
    release: ReleaseSection
    rollout: RolloutDefaults = RolloutDefaults()
    gate: GateSettings = GateSettings()
    training: TrainingSection = TrainingSection()
    worker: WorkerSection = WorkerSection()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment beats the file, which is given as arguments."""
        return env_settings, init_settings

    @property
    def database_url(self) -> str:
        """Where the tables are."""
        if self.database.url is not None:
            return self.database.url.get_secret_value()
        return f"sqlite:///{self.cloud.state_dir / 'cloud.db'}"

    @property
    def secure_cookies(self) -> bool:
        """Whether browsers reach this server by https."""
        return (self.web.public_url or "").startswith("https://")


def load(path: Path, *, flags: Mapping[str, Mapping[str, Any]] | None = None) -> CloudSettings:
    """Read `path`, let the environment override it, then `flags` (section -> key -> value).

    Relative paths in the file are taken from the file's folder.

    Raises:
        BadSettings: the file is missing or not TOML, a key is unknown, missing or of the wrong kind.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise BadSettings(f"{path}: {fault.strerror or fault}. Name the configuration with --config.") from fault
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise BadSettings(f"{path} is not TOML: {fault}") from fault
    try:
        settings = CloudSettings(**document)
        settings = _with_flags(settings, flags or {})
    except ValidationError as fault:
        raise BadSettings(f"{path}: {_first(fault)}") from fault
    return _resolved(settings, path.resolve().parent)


def _first(fault: ValidationError) -> str:
    error = fault.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in error["loc"]) or "the file"
    if error["type"] == "extra_forbidden":
        return f"unknown key {where}: remove it or correct its name"
    return f"{where}: {error['msg']}"


def _with_flags(settings: CloudSettings, flags: Mapping[str, Mapping[str, Any]]) -> CloudSettings:
    changed = {}
    for name, values in flags.items():
        given = {key: value for key, value in values.items() if value is not None}
        section = getattr(settings, name)
        changed[name] = type(section).model_validate({**dict(section), **given})
    return settings.model_copy(update=changed)


def _resolved(settings: CloudSettings, folder: Path) -> CloudSettings:
    def absolute(section: Section | None) -> Section | None:
        if section is None:
            return None
        paths = {key: folder / value for key, value in section if isinstance(value, Path)}
        return section.model_copy(update=paths)

    sections = {name: absolute(value) for name, value in settings if isinstance(value, Section)}
    return settings.model_copy(update=sections)
