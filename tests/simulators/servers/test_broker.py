"""Both brokers, real: who may connect, who may write what, who may read what."""

from __future__ import annotations

import queue
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from models.contracts.topics import INGEST_STATE, announce, dn, up
from models.link import Address
from simulators.servers.broker import Broker, mosquitto_acl, start_broker
from simulators.servers.children import Servers
from simulators.servers.errors import PortInUse, ProgramMissing
from simulators.servers.programs import find_program
from tests.simulators.servers.conftest import Plant

KINDS = [
    pytest.param(kind, marks=pytest.mark.skipif(find_program(kind) is None, reason=f"{kind} is not installed"))
    for kind in ("mosquitto", "nats-server")
]
DELIVERY_S = 5.0
REFUSAL_S = 1.0


@pytest.fixture(params=KINDS)
def broker(request: pytest.FixtureRequest, servers: Servers, plant: Plant, tmp_path: Path) -> Broker:
    return start_broker(
        servers, tmp_path, tls=plant.server_tls, cloud="cloud", edges=["edge-1", "edge-2"], kind=request.param
    )


class Client:
    """A plain paho client, so that what is tested is the broker and not our link."""

    def __init__(self, address: Address, name: str) -> None:
        self.received: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._connected: queue.Queue[bool] = queue.Queue()
        self._subscribed: queue.Queue[Any] = queue.Queue()
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv311)
        if address.tls is not None:
            context = ssl.create_default_context(cafile=str(address.tls.ca))
            context.load_cert_chain(str(address.tls.certificate), str(address.tls.key))
            client.tls_set_context(context)
        client.on_connect = lambda _c, _u, _f, reason, _p: self._connected.put(not reason.is_failure)
        client.on_subscribe = lambda _c, _u, _m, codes, _p: self._subscribed.put(codes)
        client.on_message = lambda _c, _u, message: self.received.put((message.topic, bytes(message.payload)))
        self.paho, self._address = client, address

    def connect(self, timeout: float = DELIVERY_S) -> bool:
        self.paho.connect(self._address.host, self._address.port, keepalive=30)
        self.paho.loop_start()
        return self._connected.get(timeout=timeout)

    def subscribe(self, topic: str) -> None:
        self.paho.subscribe(topic, qos=1)
        self._subscribed.get(timeout=DELIVERY_S)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self.paho.publish(topic, payload, qos=1, retain=retain)

    def payloads(self, *, until: bytes) -> list[bytes]:
        """Everything that came before and with the payload `until`."""
        found: list[bytes] = []
        while until not in found:
            found.append(self.received.get(timeout=DELIVERY_S)[1])
        return found

    def close(self) -> None:
        self.paho.disconnect()
        self.paho.loop_stop()


def refused(one: Client) -> bool:
    """With TLS 1.3 a client learns of its refusal only after its own side of the handshake is done."""
    try:
        return not one.connect(timeout=REFUSAL_S)
    except (OSError, queue.Empty):
        return True
    finally:
        one.close()


@contextmanager
def client(address: Address, name: str) -> Iterator[Client]:
    one = Client(address, name)
    try:
        assert one.connect()
        yield one
    finally:
        one.close()


@pytest.mark.servers
def test_an_edge_writes_only_below_its_own_up(broker: Broker, plant: Plant) -> None:
    with (
        client(plant.address("cloud", broker.port), "cloud") as cloud,
        client(plant.address("edge-1", broker.port), "edge-1") as edge,
        client(plant.address("edge-2", broker.port), "edge-2") as witness,
    ):
        cloud.subscribe("edgeloop/v1/#")
        for topic in (up("edge-2", "offer"), dn("edge-1", "cmd"), dn("edge-2", "ack"), INGEST_STATE, announce("cells")):
            edge.publish(topic, b"forged")
        time.sleep(0.3)
        witness.publish(up("edge-2", "offer"), b"end")
        assert cloud.payloads(until=b"end") == [b"end"]
    with (
        client(plant.address("cloud", broker.port), "cloud") as cloud,
        client(plant.address("edge-1", broker.port), "edge-1") as edge,
    ):
        cloud.subscribe("edgeloop/v1/#")
        edge.publish(up("edge-1", "offer"), b"own")
        assert cloud.payloads(until=b"own") == [b"own"]


@pytest.mark.servers
@pytest.mark.parametrize("filter_", ["edgeloop/v1/dn/+/#", "edgeloop/v1/#", "#", "edgeloop/v1/up/+/offer"])
def test_an_edge_reads_nothing_of_another_even_through_a_wide_filter(
    broker: Broker, plant: Plant, filter_: str
) -> None:
    with (
        client(plant.address("cloud", broker.port), "cloud") as cloud,
        client(plant.address("edge-1", broker.port), "edge-1") as edge,
        client(plant.address("edge-2", broker.port), "edge-2") as other,
    ):
        edge.subscribe(dn("edge-1", "ack"))
        edge.subscribe(filter_)
        cloud.publish(dn("edge-2", "ack"), b"not yours")
        other.publish(up("edge-2", "offer"), b"not yours")
        time.sleep(0.3)
        cloud.publish(dn("edge-1", "ack"), b"yours")
        assert set(edge.payloads(until=b"yours")) == {b"yours"}


@pytest.mark.servers
def test_deliveries_to_another_session_cannot_be_overheard(broker: Broker, plant: Plant) -> None:
    """NATS carries QoS 1 deliveries on subjects that every user may read: no client may name them."""
    with (
        client(plant.address("cloud", broker.port), "cloud") as cloud,
        client(plant.address("edge-1", broker.port), "edge-1") as edge,
        client(plant.address("edge-2", broker.port), "edge-2") as spy,
    ):
        edge.subscribe(dn("edge-1", "ack"))
        spy.subscribe("$MQTT/sub/#")
        spy.subscribe(dn("edge-2", "ack"))
        cloud.publish(dn("edge-1", "ack"), b"secret")
        assert edge.payloads(until=b"secret") == [b"secret"]
        cloud.publish(dn("edge-2", "ack"), b"end")
        assert spy.payloads(until=b"end") == [b"end"]


@pytest.mark.servers
def test_every_edge_reads_the_ingest_state_and_the_announcements_even_later(broker: Broker, plant: Plant) -> None:
    with client(plant.address("cloud", broker.port), "cloud") as cloud:
        cloud.publish(INGEST_STATE, b"online", retain=True)
        cloud.publish(announce("cells"), b"release 2", retain=True)
        with client(plant.address("edge-2", broker.port), "edge-2") as edge:
            edge.subscribe(INGEST_STATE)
            assert edge.payloads(until=b"online")
            edge.subscribe(announce("cells"))
            assert edge.payloads(until=b"release 2")


@pytest.mark.servers
def test_no_certificate_is_refused(broker: Broker, plant: Plant) -> None:
    context = ssl.create_default_context(cafile=str(plant.ca.certificate))
    bare = Client(Address("127.0.0.1", broker.port, None), "edge-1")
    bare.paho.tls_set_context(context)
    assert refused(bare)


@pytest.mark.servers
def test_a_foreign_authority_is_refused(broker: Broker, plant: Plant) -> None:
    rogue = Client(plant.address("edge-1", broker.port, foreign=True), "edge-1")
    assert refused(rogue)


@pytest.mark.servers
def test_plain_tcp_is_refused(broker: Broker) -> None:
    plain = Client(Address("127.0.0.1", broker.port, None), "edge-1")
    assert refused(plain)


@pytest.mark.servers
def test_a_taken_port_is_one_clear_line(servers: Servers, plant: Plant, broker: Broker, tmp_path: Path) -> None:
    with pytest.raises(PortInUse, match=f"port {broker.port} for the broker is in use"):
        start_broker(servers, tmp_path / "b", tls=plant.server_tls, cloud="cloud", edges=[], port=broker.port)


def test_no_broker_at_all_says_what_to_install(servers: Servers, plant: Plant, tmp_path: Path) -> None:
    with pytest.raises(ProgramMissing, match=r"install mosquitto .*edgeloop\[demo\]") as caught:
        start_broker(servers, tmp_path, tls=plant.server_tls, cloud="cloud", edges=[], path=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_rules_are_those_of_the_topics_module() -> None:
    assert mosquitto_acl("cloud").splitlines() == [
        "user cloud",
        "topic readwrite edgeloop/v1/#",
        "",
        "pattern write edgeloop/v1/up/%u/#",
        "pattern read edgeloop/v1/dn/%u/#",
        "pattern read edgeloop/v1/state/#",
        "pattern read edgeloop/v1/fleet/+/announce",
    ]
