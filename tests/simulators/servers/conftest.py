"""A set of child processes that is stopped after each test, and a small plant's certificates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloud.identity import Identity, LocalCa
from models.link import Address, Tls
from simulators.servers.broker import ServerTls
from simulators.servers.children import Servers


@dataclass(frozen=True)
class Plant:
    """An authority, a broker's certificate and clients by name; `rogue` comes from a foreign authority."""

    ca: LocalCa
    foreign: LocalCa
    server: Identity

    @classmethod
    def make(cls, folder: Path) -> Plant:
        now = datetime.now(UTC)
        ca = LocalCa.create(folder / "ca", now=now)
        foreign = LocalCa.create(folder / "foreign", now=now)
        return cls(ca, foreign, ca.issue("broker", kind="server", now=now, hosts=["127.0.0.1", "localhost"]))

    @property
    def server_tls(self) -> ServerTls:
        return ServerTls(self.ca.certificate, self.server.certificate, self.server.key)

    def address(self, name: str, port: int, *, foreign: bool = False) -> Address:
        """How client `name` reaches the broker; trusts our authority even when its own certificate is foreign."""
        issuer = self.foreign if foreign else self.ca
        identity = issuer.issue(name, kind="device", now=datetime.now(UTC))
        return Address("127.0.0.1", port, Tls(self.ca.certificate, identity.certificate, identity.key))


@pytest.fixture(scope="session")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    return Plant.make(tmp_path_factory.mktemp("plant"))


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with Servers(tmp_path / "logs") as running:
        yield running
