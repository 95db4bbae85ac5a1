"""Ports: free, taken, paired."""

from __future__ import annotations

import random
import socket

import pytest

from simulators.servers.errors import PortInUse, ServerError
from simulators.servers.ports import LOOPBACK, answers, free_ports, is_free, require_free


def test_ports_are_free_and_differ() -> None:
    ports = free_ports(8)
    assert len(set(ports)) == 8
    assert all(is_free(port) for port in ports)


def test_a_taken_port_is_neither_free_nor_offered() -> None:
    first = free_ports(1, rng=random.Random(5))[0]
    with socket.create_server((LOOPBACK, first)):
        assert not is_free(first)
        assert answers(first)
        assert free_ports(1, rng=random.Random(5)) != [first]
        with pytest.raises(PortInUse, match=f"port {first} for the dashboard is in use: stop what listens there"):
            require_free(first, "dashboard")
    assert not answers(first)


def test_a_partner_port_must_be_free_too() -> None:
    first = free_ports(1, rng=random.Random(5))[0]
    with socket.create_server((LOOPBACK, first + 10_000)):
        assert free_ports(1, rng=random.Random(5), above=10_000) != [first]


def test_it_gives_up_when_there_are_none() -> None:
    with pytest.raises(ServerError, match="no 1 free ports"):
        free_ports(1, above=60_000)
