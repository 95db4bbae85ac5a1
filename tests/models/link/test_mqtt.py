"""MqttLink against a real mosquitto with mutual TLS: identity, wills, retained state, reconnect, in-flight cap."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.uplink import open_link
from models.contracts import topics
from models.contracts.telemetry import Presence
from models.link import Address, Inbound, Tls, Will
from models.link.mqtt import MqttLink
from tests.models.link.conftest import Authority, Mosquitto

pytestmark = [pytest.mark.servers, pytest.mark.timeout(60)]


def wait(condition: Callable[[], object], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


class Client:
    """A started link that remembers what it heard; `hold` leaves messages unacknowledged."""

    def __init__(self, link: MqttLink, *, hold: bool = False) -> None:
        self.link, self.hold = link, hold
        self.got: list[Inbound] = []
        self.changes: list[bool] = []
        link.start(on_message=self._message, on_connection=self.changes.append)

    def _message(self, message: Inbound) -> None:
        self.got.append(message)
        if not self.hold:
            message.ack()

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.got]


def pull_the_cable(link: MqttLink) -> None:
    connection = link._client.socket()
    assert connection is not None
    connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def join() -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def make(
        address: Address, name: str, *subscriptions: str, will: Will | None = None, up: bool = True, hold: bool = False
    ) -> Client:
        link = MqttLink(
            address=address, client_id=name, subscriptions=list(subscriptions), will=will, max_reconnect_s=1.0,
            rng=random.Random(1),
        )  # fmt: skip
        clients.append(Client(link, hold=hold))
        if up:
            assert wait(lambda: link.connected)
        return clients[-1]

    yield make
    for client in clients:
        client.link.stop()


def test_both_ends_speak_over_mutual_tls(broker: Mosquitto, authority: Authority, join) -> None:
    cloud = join(broker.address(authority.issue("cloud")), "cloud", topics.ALL_UP)
    edge = join(broker.address(authority.issue("edge-1")), "edge-1", topics.dn("edge-1", "ack"))
    payload = bytes(range(256)) * 480
    assert edge.link.publish(topics.up("edge-1", "data"), payload)
    assert wait(lambda: cloud.got)
    assert (cloud.got[0].topic, cloud.got[0].payload) == (topics.up("edge-1", "data"), payload)
    assert cloud.link.publish(topics.dn("edge-1", "ack"), b"ok")
    assert wait(lambda: edge.payloads == [b"ok"])


def test_an_edge_cannot_write_or_read_as_another(broker: Mosquitto, authority: Authority, join) -> None:
    cloud = join(broker.address(authority.issue("cloud")), "cloud", topics.ALL_UP)
    edge = join(broker.address(authority.issue("edge-1")), "edge-1", topics.dn("edge-2", "ack"), "#")
    edge.link.publish(topics.up("edge-2", "offer"), b"forged")
    edge.link.publish(topics.INGEST_STATE, b"forged", retain=True)
    edge.link.publish(topics.up("edge-1", "offer"), b"mine")
    cloud.link.publish(topics.dn("edge-2", "ack"), b"not for you")
    assert wait(lambda: b"mine" in cloud.payloads)
    time.sleep(0.2)
    assert cloud.payloads == [b"mine"]
    assert edge.payloads == []


# paho 2.2 leaves the socket of a refused handshake to the garbage collector, which closes it and warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("case", ["none", "foreign", "expired", "wrong_host"])
def test_who_cannot_prove_itself_stays_outside(tmp_path: Path, authority: Authority, case: str, join) -> None:
    foreign = Authority(tmp_path, "foreign")
    server = authority.issue("broker", host="127.0.0.2" if case == "wrong_host" else "127.0.0.1")
    broker = Mosquitto(tmp_path, server)
    broker.start()
    try:
        good = authority.issue("edge-1")
        tls: dict[str, Tls | None] = {
            "none": None,
            "foreign": Tls(authority.ca, foreign.issue("edge-1").certificate, foreign.issue("edge-1").key),
            "expired": authority.issue("edge-1", days=-1),
            "wrong_host": good,
        }
        if case == "foreign":
            issued = foreign.issue("edge-2")
            tls["foreign"] = Tls(authority.ca, issued.certificate, issued.key)
        client = join(broker.address(tls[case]), "edge-1", up=False)
        assert not wait(lambda: client.link.connected, 1.5)
        assert not client.link.publish(topics.up("edge-1", "offer"), b"x")
    finally:
        broker.kill()


def test_the_will_of_a_box_that_vanished(broker: Mosquitto, authority: Authority, join) -> None:
    cloud = join(broker.address(authority.issue("cloud")), "cloud", topics.up("edge-1", "state"))
    address = broker.address(authority.issue("edge-1"))
    link = open_link("edge-1", address, line="cells")
    edge = Client(link)
    assert wait(lambda: link.connected)
    pull_the_cable(link)
    assert wait(lambda: cloud.got)
    assert cloud.payloads == [Presence(edge="edge-1", online=False).encode()]
    assert wait(lambda: edge.changes == [True, False, True])
    link.stop()
    time.sleep(0.3)
    assert len(cloud.got) == 1, "a goodbye publishes no will"


def test_a_retained_state_greets_every_connection(broker: Mosquitto, authority: Authority, join) -> None:
    cloud = join(broker.address(authority.issue("cloud")), "cloud")
    cloud.link.publish(topics.INGEST_STATE, b"on", retain=True)
    edge = join(broker.address(authority.issue("edge-1")), "edge-1", topics.INGEST_STATE)
    assert wait(lambda: [(m.payload, m.retained) for m in edge.got] == [(b"on", True)])


def test_a_broker_that_dies_is_found_again(broker: Mosquitto, authority: Authority, join) -> None:
    cloud = join(broker.address(authority.issue("cloud")), "cloud", topics.ALL_UP)
    edge = join(broker.address(authority.issue("edge-1")), "edge-1")
    broker.kill()
    assert wait(lambda: not edge.link.connected and not cloud.link.connected)
    assert not edge.link.publish(topics.up("edge-1", "offer"), b"nobody hears")
    broker.start()
    assert wait(lambda: edge.link.connected and cloud.link.connected)
    assert edge.changes == [True, False, True]
    assert edge.link.publish(topics.up("edge-1", "offer"), b"again", timeout=5.0)
    assert wait(lambda: cloud.payloads == [b"again"])


def test_a_broker_that_is_not_there_at_start(broker: Mosquitto, authority: Authority, join) -> None:
    broker.kill()
    edge = join(broker.address(authority.issue("edge-1")), "edge-1", up=False)
    assert not wait(lambda: edge.link.connected, 0.5)
    broker.start()
    assert wait(lambda: edge.link.connected)


def test_the_ninth_message_in_flight_waits_or_is_refused(authority: Authority) -> None:
    """A broker that takes everything and acknowledges nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def mute() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"\x20\x02\x00\x00")
                connection.settimeout(0.1)
                while not stop.is_set():
                    try:
                        if not connection.recv(65_536):
                            return
                    except TimeoutError:
                        continue

        thread = threading.Thread(target=mute, daemon=True)
        thread.start()
        link = MqttLink(
            address=Address("127.0.0.1", server.getsockname()[1]), client_id="edge-1", subscriptions=[], max_in_flight=8
        )
        link.start(on_message=lambda message: None, on_connection=lambda connected: None)
        assert wait(lambda: link.connected)
        assert [link.publish("t", b"x") for _ in range(10)] == [True] * 8 + [False] * 2
        start = time.monotonic()
        assert not link.publish("t", b"x", timeout=0.3)
        assert 0.25 < time.monotonic() - start < 5
        assert link.publish("t", b"heartbeat", qos=0)
        stop.set()
        link.stop()
        link.stop()
        thread.join(5)


def test_places_come_back_with_the_acknowledgements(broker: Mosquitto, authority: Authority, join) -> None:
    edge = join(broker.address(authority.issue("edge-1")), "edge-1")
    cloud = join(broker.address(authority.issue("cloud")), "cloud", topics.ALL_UP)
    for i in range(300):
        assert edge.link.publish(topics.up("edge-1", "data"), i.to_bytes(2, "big"), timeout=5.0)
    assert wait(lambda: len(cloud.got) == 300)
    assert cloud.payloads == sorted(cloud.payloads)


def test_what_was_not_acknowledged_comes_again_or_not_but_breaks_nothing(
    broker: Mosquitto, authority: Authority, join
) -> None:
    """Manual acknowledgement: the broker stops at its in-flight limit until the receiver says it is done."""
    cloud = join(broker.address(authority.issue("cloud")), "cloud", topics.ALL_UP, hold=True)
    edge = join(broker.address(authority.issue("edge-1")), "edge-1")
    for i in range(60):
        assert edge.link.publish(topics.up("edge-1", "data"), bytes([i]), timeout=5.0)
    time.sleep(0.5)
    held = len(cloud.got)
    assert held < 60
    for message in list(cloud.got):
        message.ack()
    cloud.hold = False
    assert wait(lambda: len(cloud.got) == 60)
