"""The demo from the first server to the last table.

    plant -> starting model -> release 1 -> boxes -> hours -> let everything arrive -> read the test set -> table

Everything that was started is stopped on the way out, however that is: end, Ctrl-C, SIGTERM, a fault.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from cloud.first_release import publish_bundle
from cloud.registry.loading import ModelLoader
from models.runtime.bundle import Bundle, read_adapter, read_starting
from models.runtime.inspector import LineModel
from simulators.camera import change, encode_png
from simulators.cells import CREDIT, CellSets, of_kind, read_cells, split
from simulators.demo import setup
from simulators.demo.checks import Check, checks
from simulators.demo.evaluate import Images, TestTable, table
from simulators.demo.figures import Figures, Observed, account, figures
from simulators.demo.journal import Journals, live_at
from simulators.demo.plant import Folders, choose_ports
from simulators.demo.records import read_records
from simulators.demo.scenario import CLASSES, LINE, Scenario
from simulators.demo.schedule import Showing, bytes_per_hour, plan, write_schedules, write_truth
from simulators.demo.screen import Screen
from simulators.demo.training import Request, obtain
from simulators.demo.watch import Watch
from simulators.servers.children import Command, Servers, edgeloop, require_space
from simulators.servers.errors import NotReady

NEEDED_BYTES = 1_500_000_000
LEAD_S = 15.0
RELEASE_WITHIN_S = 120.0
DRAIN_S = 40.0
SAMPLED_FRAMES = 24
LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Options:
    """How to run, not what. `work` holds the run, `cache` the trained models between runs."""

    work: Path
    cache: Path
    port: int | None = None
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    figures: Figures
    checks: list[Check]
    sign_in: str

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks if check.required)


@dataclass(slots=True)
class Stopwatch:
    """Seconds by phase."""

    clock: Callable[[], float] = time.monotonic
    seconds: dict[str, float] = field(default_factory=dict)
    _last: float = field(default_factory=time.monotonic)

    def lap(self, name: str) -> None:
        now = self.clock()
        self.seconds[name], self._last = now - self._last, now


class Demo:
    """One run. `run` leaves the servers up, so that a person can look around; the `Servers` context stops them."""

    def __init__(self, scenario: Scenario, options: Options, *, servers: Servers, screen: Screen) -> None:
        self._scenario, self._options = scenario, options
        self._servers, self._screen = servers, screen
        self._folders = Folders(options.work)
        self._watch = Stopwatch()

    def run(self) -> Outcome:
        """All of it.

        Raises:
            ServerError, NoCells: one line for a person.
        """
        say = self._screen.say
        require_space(self._options.work, NEEDED_BYTES)
        say(CREDIT)
        sets = split(read_cells(), seed=self._scenario.seed)
        showings = plan(self._scenario, sets.stream)
        ports = choose_ports(self._options.port)
        plant = setup.raise_plant(self._scenario, self._folders, ports, self._servers, say)
        setup.import_references(plant, sets)
        self._watch.lap("servers")
        starting, bundle = self._starting_model(sets)
        self._watch.lap("starting_model")
        first = self._begin(plant, sets, showings, bundle)
        self._watch.lap("first_release")
        observed = self._hours(plant, showings, first)
        self._watch.lap("hours")
        test = self._read_test_set(plant, sets=sets, observed=observed, starting=starting, bundle=bundle)
        self._watch.lap("evaluation")
        run = figures(self._scenario, observed, test, seconds=self._watch.seconds)
        return Outcome(run, checks(run), plant.sign_in)

    def _starting_model(self, sets: CellSets) -> tuple[Path, Bundle]:
        request = Request(
            "starting", cells=sets.base, replay=(), validation=of_kind(sets.gate, "mono"), scenario=self._scenario
        )
        self._screen.say(f"starting model: {self._scenario.preset}, {len(sets.base)} mono cells")
        folder, cached = obtain(request, self._options.cache, self._servers, fresh=self._options.fresh)
        how = "from the cache, by digest of code, data and seed (--fresh trains again)" if cached else "trained"
        self._screen.say(f"starting model: {how}: {folder.name}")
        return folder, read_starting(folder)

    def _begin(self, plant: setup.Plant, sets: CellSets, showings: list[Showing], bundle: Bundle) -> float:
        """Release 1, the boxes, and the moment at which hour 1 begins."""
        say, scenario = self._screen.say, self._scenario
        publish_bundle(plant.services, bundle, plant.keys)
        setup.start_cloud(plant)
        say(f"dashboard: {plant.sign_in}")
        setup.wait_for_release(plant, within=RELEASE_WITHIN_S)
        say("release 1: judged by the gate, signed by trainer, gate and channel, published")
        first = scenario.next_start(time.time(), lead_s=LEAD_S)
        write_schedules(showings, self._folders.schedules(), first=first)
        write_truth(showings, self._folders.truth)
        budget = bytes_per_hour(showings, scenario, frame_bytes=mean_frame_bytes(showings))
        setup.start_agents(plant, bytes_per_hour=budget)
        self._start_reviewer(plant)
        setup.import_new_product(plant, sets, change_at=scenario.starts(first, scenario.change_after + 1))
        self._wait_for_boxes(plant, first)
        return float(first)

    def _wait_for_boxes(self, plant: setup.Plant, first: float) -> None:
        api, edges = plant.api(), set(self._scenario.edge_names)
        try:
            self._servers.wait(
                lambda: setup.boxes_with(api, 1) >= edges, what="release 1 on every box", within=first - time.time()
            )
        except NotReady as fault:
            raise NotReady("the boxes did not install release 1 before hour 1: this machine is too busy") from fault
        finally:
            api.close()
        self._screen.say(f"release 1 runs on {', '.join(sorted(edges))}")

    def _start_reviewer(self, plant: setup.Plant) -> None:
        scenario = self._scenario
        if scenario.label_by_hand:
            self._screen.say(f"labels are yours to give: {plant.url}/lines/{LINE}/review")
            return
        options = {
            "line": LINE,
            "truth": self._folders.truth,
            "classes": ",".join(CLASSES),
            "url": plant.url,
            "mistakes": scenario.mistakes,
            "delay-s": scenario.review_delay_s,
            "per-hour": scenario.labels_per_hour,
            "hour-s": scenario.hour_s,
            "seed": scenario.seed,
        }
        flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        secret = {"EDGELOOP_TOKEN": plant.tokens.secrets["simulated reviewer"]}
        command = Command("reviewer", edgeloop("simulate", "reviewer", *flags), tier=3, environment=secret)
        self._servers.start(command)

    def _hours(self, plant: setup.Plant, showings: list[Showing], first: float) -> Observed:
        scenario, api = self._scenario, plant.api()
        children = self._servers.children
        watch = Watch(
            scenario=scenario,
            first=first,
            showings=showings,
            journals=Journals({edge: self._folders.journal(edge) for edge in scenario.edge_names}),
            api=api,
            records=lambda: read_records(plant.services.reads, LINE),
            boxes={edge: children[edge] for edge in scenario.edge_names},
        )
        try:
            with self._screen.hours(scenario) as show:
                while time.time() < first + scenario.length_s:
                    self._servers.check()
                    show(watch.look())
                    time.sleep(LOOK_S)
                show(watch.look())
            return self._let_arrive(watch, plant, showings, first)
        finally:
            api.close()

    def _let_arrive(self, watch: Watch, plant: setup.Plant, showings: list[Showing], first: float) -> Observed:
        """The belt stands still: nothing is labelled or learned any more, and what was kept comes in."""
        self._screen.say("the belt stands still; waiting for the last samples")
        self._servers.stop(*(name for name in ("reviewer", "train-worker") if name in self._servers.children))
        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline and not self._settled(watch):
            self._servers.check()
            watch.look()
            time.sleep(LOOK_S)
        watch.look()
        watch.ask()
        return Observed(
            first=first,
            showings=showings,
            entries=watch.journals.entries,
            records=read_records(plant.services.reads, LINE),
            estimates=watch.estimates,
            account=account(watch.api.conservation(LINE)),
            peak_rss_bytes=dict(watch.peaks),
        )

    def _settled(self, watch: Watch) -> bool:
        """Every box has said, after its last part, that nothing waits in its spool."""
        found = account(watch.api.conservation(LINE))
        kept = sum(entry.sid is not None for entry in watch.journals.entries)
        return found.holds and found.pending == 0 and found.stored + found.lost >= kept

    def _read_test_set(
        self,
        plant: setup.Plant,
        *,
        sets: CellSets,
        observed: Observed,
        starting: Path,
        bundle: Bundle,
    ) -> TestTable:
        poly = of_kind(sets.stream, "poly")
        request = Request(
            "joint", cells=poly, replay=sets.base, validation=sets.gate, scenario=self._scenario, starting=starting
        )
        self._screen.say(f"joint reference: all {len(poly)} poly labels of the stream")
        folder, cached = obtain(request, self._options.cache, self._servers, fresh=self._options.fresh)
        self._screen.say(f"joint reference: {'from the cache' if cached else 'trained'}; reading the test set")
        adapter, blobs = read_adapter(folder)
        joint = Bundle(bundle.base, bundle.files, bundle.checkpoint, adapter, blobs)
        return table(
            start=bundle.model(),
            loop=self._loop_model(plant, observed),
            joint=joint.model(),
            test_poly=Images(of_kind(sets.test, "poly")),
            test_mono=Images(of_kind(sets.test, "mono")),
            gate_poly=Images(of_kind(sets.gate, "poly")),
            seed=self._scenario.seed,
        )

    def _loop_model(self, plant: setup.Plant, observed: Observed) -> LineModel:
        """The newest release that every box ran."""
        edges = self._scenario.edge_names
        live = [one for one in observed.records.rolled if live_at(observed.entries, one.number, edges) is not None]
        newest = max(live, key=lambda one: one.number)
        services = plant.services
        loader = ModelLoader(registry=services.registry, blobs=services.blobs)
        return loader.load(services.registry.by_release(LINE, newest.adapter_release), release=newest.number)


def mean_frame_bytes(showings: list[Showing]) -> float:
    """Mean size of a frame as the camera encodes it, over an even sample of the run."""
    chosen = showings[:: max(1, len(showings) // SAMPLED_FRAMES)]
    sizes = []
    for part in chosen:
        pixels = cv2.imread(str(part.path), cv2.IMREAD_UNCHANGED)
        sizes.append(len(encode_png(change(np.asarray(pixels, dtype=np.uint8), seed=part.seed))))
    return sum(sizes) / len(sizes)
