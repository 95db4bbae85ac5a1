"""The broker fake keeps the promises tests rely on: ACL, retained, wills, takeovers, and its knobs really bite."""

from __future__ import annotations

import random

import pytest

from models.contracts import topics
from models.link import Inbound, Will
from simulators.broker import Broker, FakeLink, factory_acl, matches

STATE = topics.INGEST_STATE


class Client:
    def __init__(self, broker: Broker, user: str, *subscriptions: str, will: Will | None = None, id: str | None = None):
        self.got: list[Inbound] = []
        self.changes: list[bool] = []
        self.link: FakeLink = broker.link(user, subscriptions=list(subscriptions), will=will, client_id=id)
        self.link.start(on_message=self.got.append, on_connection=self.changes.append)

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.got]


@pytest.fixture
def broker() -> Broker:
    return Broker(rng=random.Random(7))


def test_a_message_reaches_subscribers_only(broker: Broker) -> None:
    cloud, other = Client(broker, "cloud", topics.ALL_UP), Client(broker, "edge-2", topics.dn("edge-2", "ack"))
    edge = Client(broker, "edge-1")
    assert edge.link.publish(topics.up("edge-1", "offer"), b"x")
    broker.deliver()
    assert cloud.payloads == [b"x"]
    assert other.got == []


@pytest.mark.parametrize(
    ("access", "topic", "allowed"),
    [
        ("write", topics.up("edge-1", "data"), True),
        ("write", topics.up("edge-2", "data"), False),
        ("write", topics.dn("edge-1", "ack"), False),
        ("write", STATE, False),
        ("read", topics.dn("edge-1", "ack"), True),
        ("read", topics.dn("edge-2", "ack"), False),
        ("read", topics.ALL_UP, False),
        ("read", "#", False),
        ("read", "edgeloop/v1/#", False),
        ("read", STATE, True),
        ("read", topics.announce("cells"), True),
        ("read", "edgeloop/v1/fleet/+/announce", True),
    ],
)
def test_the_acl_of_an_edge(access: str, topic: str, allowed: bool) -> None:
    assert factory_acl("edge-1", access, topic) is allowed


def test_a_forged_topic_goes_nowhere(broker: Broker) -> None:
    cloud, edge = Client(broker, "cloud", topics.ALL_UP), Client(broker, "edge-1")
    edge.link.publish(topics.up("edge-2", "offer"), b"forged")
    broker.deliver()
    assert cloud.got == []
    assert broker.counts["denied"] == 1


def test_retained_messages_greet_the_latecomer(broker: Broker) -> None:
    Client(broker, "cloud").link.publish(STATE, b"on", retain=True)
    late = Client(broker, "edge-1", STATE)
    broker.deliver()
    assert [(m.payload, m.retained) for m in late.got] == [(b"on", True)]


def test_the_will_speaks_after_a_cut_and_not_after_a_goodbye(broker: Broker) -> None:
    cloud = Client(broker, "cloud", topics.ALL_UP)
    topic = topics.up("edge-1", "state")
    edge = Client(broker, "edge-1", will=Will(topic, b"off"))
    broker.cut("edge-1")
    assert edge.changes == [True, False]
    broker.restore("edge-1")
    edge.link.stop()
    broker.deliver()
    assert cloud.payloads == [b"off"]


def test_a_second_connection_takes_over(broker: Broker) -> None:
    first, second = Client(broker, "edge-1"), Client(broker, "edge-1")
    assert (first.link.connected, second.link.connected) == (False, True)
    assert broker.counts["takeovers"] == 1


def test_what_is_on_the_way_dies_with_the_connection(broker: Broker) -> None:
    edge = Client(broker, "edge-1", topics.dn("edge-1", "ack"))
    Client(broker, "cloud").link.publish(topics.dn("edge-1", "ack"), b"x")
    broker.cut("edge-1")
    broker.restore("edge-1")
    broker.deliver()
    assert edge.got == []


def test_a_dead_broker_takes_nothing_and_forgets_what_it_retained(broker: Broker) -> None:
    cloud = Client(broker, "cloud")
    cloud.link.publish(STATE, b"on", retain=True)
    broker.go_down()
    assert not cloud.link.publish(STATE, b"on")
    broker.come_up()
    late = Client(broker, "edge-1", STATE)
    broker.deliver()
    assert (cloud.changes, late.got) == ([True, False, True], [])


@pytest.mark.parametrize("knob", ["drop", "duplicate", "reorder"])
def test_every_knob_bites(broker: Broker, knob: str) -> None:
    cloud, edge = Client(broker, "cloud", topics.ALL_UP), Client(broker, "edge-1")
    setattr(broker, knob, 0.3)
    for i in range(200):
        edge.link.publish(topics.up("edge-1", "offer"), bytes([i]))
    broker.deliver()
    numbers = [payload[0] for payload in cloud.payloads]
    assert (len(numbers) < 200) is (knob == "drop")
    assert (len(numbers) > 200) is (knob == "duplicate")
    assert (numbers != sorted(numbers)) is (knob == "reorder")


@pytest.mark.parametrize(
    ("pattern", "topic", "match"),
    [
        ("a/+/c", "a/b/c", True),
        ("a/+", "a/b/c", False),
        ("a/#", "a/b/c", True),
        ("a/#", "b", False),
        ("a/b", "a/b/c", False),
        ("#", "$SYS/x", False),
        ("+/b", "a/b", True),
    ],
)
def test_filters(pattern: str, topic: str, match: bool) -> None:
    assert matches(pattern, topic) is match
