"""The link over MQTT 3.1.1 by paho: clean sessions, TLS 1.2 or later, manual acknowledgement, capped in-flight.

paho never looks at the broker's Receive Maximum and queues without limit, so the cap of 8 is kept here by a
semaphore: a publish without a free place returns False and the caller keeps its message.
"""

from __future__ import annotations

import random
import ssl
import threading
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from models.link import Address, Inbound, OnConnection, OnMessage, Qos, Will

MAX_IN_FLIGHT = 8
KEEPALIVE_S = 30
CONNECT_TIMEOUT_S = 10.0


class MqttLink:
    """See `models.link.Link`.

    Args:
        client_id: unique at the broker; a second connection with the same id takes over the first.
        subscriptions: topic filters, subscribed at QoS 1 after every connect.
        max_reconnect_s: the reconnect delay doubles up to this; each client starts at a random 0.5 to 1.5 s, so a
            fleet does not come back in step.
    """

    def __init__(
        self,
        *,
        address: Address,
        client_id: str,
        subscriptions: list[str],
        will: Will | None = None,
        max_in_flight: int = MAX_IN_FLIGHT,
        max_reconnect_s: float = 60.0,
        rng: random.Random | None = None,
    ) -> None:
        self._address = address
        self._subscriptions = subscriptions
        self._places = threading.BoundedSemaphore(max_in_flight)
        self._in_flight: dict[int, bool] = {}
        self._early: set[int] = set()
        self._lock = threading.Lock()
        self._connected = threading.Event()
        self._stopping = False
        self._on_message: OnMessage = lambda message: None
        self._on_connection: OnConnection = lambda connected: None
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=True,
            protocol=paho.MQTTv311,
            manual_ack=True,
        )
        client.max_inflight_messages_set(max_in_flight)
        client.connect_timeout = CONNECT_TIMEOUT_S
        first = (rng or random.Random()).uniform(0.5, 1.5)
        client.reconnect_delay_set(min_delay=first, max_delay=max_reconnect_s)  # type: ignore[arg-type]
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=will.retain)
        if address.tls is not None:
            context = ssl.create_default_context(cafile=str(address.tls.ca))
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(str(address.tls.certificate), str(address.tls.key))
            client.tls_set_context(context)
        client.on_connect = self._connect
        client.on_disconnect = self._disconnect
        client.on_subscribe = self._subscribed
        client.on_publish = self._published
        client.on_message = self._message
        self._client = client

    @property
    def connected(self) -> bool:
        return self._connected.is_set()

    def start(self, *, on_message: OnMessage, on_connection: OnConnection) -> None:
        self._on_message, self._on_connection = on_message, on_connection
        self._client.connect_async(self._address.host, self._address.port, keepalive=KEEPALIVE_S)
        self._client.loop_start()

    def publish(self, topic: str, payload: bytes, *, qos: Qos = 1, retain: bool = False, timeout: float = 0.0) -> bool:
        if not self.connected:
            return False
        if qos == 1 and not self._places.acquire(timeout=timeout if timeout > 0 else None, blocking=timeout > 0):
            return False
        info = self._client.publish(topic, payload, qos=qos, retain=retain)
        if info.rc == paho.MQTT_ERR_SUCCESS or (qos == 1 and info.rc == paho.MQTT_ERR_NO_CONN):
            # On NO_CONN paho keeps a QoS 1 message and sends it after the reconnect: it still holds its place.
            self._sent(info.mid, holds_place=qos == 1)
            return info.rc == paho.MQTT_ERR_SUCCESS
        if qos == 1:
            self._places.release()
        return False

    def stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._client.disconnect()
        self._client.loop_stop()
        self._connected.clear()

    def _connect(self, client: paho.Client, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            return
        if self._subscriptions:
            client.subscribe([(topic, 1) for topic in self._subscriptions])
        else:
            self._announce(connected=True)

    def _subscribed(self, _client: paho.Client, _userdata: Any, _mid: int, _codes: Any, _properties: Any) -> None:
        self._announce(connected=True)

    def _disconnect(self, _client: paho.Client, _userdata: Any, _flags: Any, _reason: Any, _properties: Any) -> None:
        self._announce(connected=False)

    def _announce(self, *, connected: bool) -> None:
        if connected == self.connected:
            return
        (self._connected.set if connected else self._connected.clear)()
        self._on_connection(connected)

    # paho calls `_published` while it holds its own lock, sometimes before `publish` has returned the message id, so
    # the two meet here without our lock ever being held across a call into paho.

    def _sent(self, mid: int, *, holds_place: bool) -> None:
        with self._lock:
            if mid not in self._early:
                self._in_flight[mid] = holds_place
                return
            self._early.discard(mid)
        if holds_place:
            self._places.release()

    def _published(self, _client: paho.Client, _userdata: Any, mid: int, _reason: Any, _properties: Any) -> None:
        with self._lock:
            held = self._in_flight.pop(mid, None)
            if held is None:
                self._early.add(mid)
        if held:
            self._places.release()

    def _message(self, client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
        mid, qos = message.mid, message.qos
        self._on_message(
            Inbound(
                topic=message.topic,
                payload=bytes(message.payload),
                retained=message.retain,
                ack=lambda: client.ack(mid, qos),  # type: ignore[arg-type]
            )
        )
