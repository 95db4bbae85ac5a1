"""The update state machine: check, fetch, prove, swap, watch, then commit or go back.

    idle -> checking -> downloading -> verified -> (waiting) -> activating -> probation -> committed | rolled back
                                   refused (this release never)        blocked (the box first)

What runs is decided by ``slots.json`` alone, and it is written before the step it permits: ACTIVATING before a model is
loaded, PROBATION before it is swapped in. So a crash while loading is seen at the next start, and a crash on probation
returns to the previous release. An error here, an expired repository included, never touches inspection.

Threads: `boot`, `check`, `conclude` and `stop` are the update loop's; `inspected` is the pipeline's: it only counts
and, on a failed limit, puts the previous model back at once.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

import structlog

from edge_agent.clock import Clock
from edge_agent.decision import Judgement
from edge_agent.plain import plain
from edge_agent.updater.eligible import Box, Refuse, Take, Wait, judge
from edge_agent.updater.loader import CannotLoad, ModelLoader
from edge_agent.updater.probation import Failed, Passed, Probation, shadow
from edge_agent.updater.releases import Releases
from edge_agent.updater.reports import Reporter
from edge_agent.updater.slots import Rejected, Slot, SlotStore
from models.contracts.control import SECURITY_REASONS, ReportReason, UpdateState
from models.contracts.release_manifest import ChannelManifest
from models.runtime.image import Pixels
from models.runtime.inspector import Inspection, Inspector, LineModel
from ota.errors import BlockedError, RefusedError

MAX_LOAD_ATTEMPTS = 2
MAX_FIRST_ATTEMPTS = 3
_log = structlog.get_logger("updater")


class Updater:
    """See the module. `wake` is called when a probation has a result and `conclude` is due.

    `dispensable`: inspection goes on without a model of this line, so one that is revoked or failed never stays.
    """

    def __init__(
        self,
        *,
        releases: Releases,
        loader: ModelLoader,
        inspector: Inspector,
        store: SlotStore,
        reporter: Reporter,
        box: Callable[[], Box],
        line: str,
        channel: str,
        clock: Clock,
        wake: Callable[[], None] = lambda: None,
        dispensable: bool = False,
    ) -> None:
        self._releases, self._loader, self._inspector = releases, loader, inspector
        self._store, self._reporter, self._box = store, reporter, box
        self._line, self._channel, self._clock = line, channel, clock
        self.wake = wake
        self._trial: tuple[LineModel, Probation] | None = None
        self._result: Passed | Failed | None = None
        self._trial_lock = threading.Lock()
        self._pause_ms: float | None = None
        self._said: tuple[object, ...] | None = None
        self._dispensable = dispensable
        self._kept_revoked: int | None = None
        self._trouble: str | None = None
        self.security_faults = 0

    @property
    def state(self) -> UpdateState:
        return self._store.now.state

    @property
    def trouble(self) -> str | None:
        """What stands in the way of updating, or None. A revoked model comes first and stays until another runs."""
        removed, current, revoked = self._store.now.removed, self._store.now.current, None
        if removed is not None:
            revoked = f"release {removed} is revoked and was removed; there is none to fall back to"
        elif current is not None and current.release == self._kept_revoked:
            revoked = f"release {self._kept_revoked} is revoked and there is none to fall back to"
        return "; ".join(why for why in (revoked, self._trouble) if why) or None

    @trouble.setter
    def trouble(self, why: str | None) -> None:
        self._trouble = why

    # -- start and stop --------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Load what the slots say, without the network."""
        crashed, spoken = self._store.now.running, self._store.now.counter
        self._store.change(running=True)
        if crashed and self.state is UpdateState.PROBATION:
            self._crashed_on_probation()
        elif crashed and self.state is UpdateState.ACTIVATING:
            self._crashed_while_loading()
        self._load_current()
        if self.state is UpdateState.PROBATION:
            self._begin_trial()
        elif self._store.now.counter == spoken:
            settled = UpdateState.COMMITTED if self._store.now.current else UpdateState.IDLE
            self._store.change(state=settled)
            self._reporter.say(settled)

    def stop(self) -> None:
        """A regular stop: probation goes on at the next start and no try is lost."""
        self._store.change(running=False)

    def _crashed_on_probation(self) -> None:
        """Back to the previous release; the first release of a box has none and gets a few tries."""
        slots = self._store.now
        if slots.previous is None and slots.attempt < MAX_FIRST_ATTEMPTS:
            self._store.change(attempt=slots.attempt + 1)
            return
        self._roll_back(ReportReason.CRASHED, "the agent ended without a stop during probation")

    def _crashed_while_loading(self) -> None:
        slots = self._store.now
        if slots.staged is not None and slots.attempt >= MAX_LOAD_ATTEMPTS:
            self._refuse(slots.staged, ReportReason.CRASHED, f"the agent ended {slots.attempt} times while loading it")
        else:
            self._store.change(state=UpdateState.VERIFIED)

    def _load_current(self) -> None:
        slots = self._store.now
        if slots.state is UpdateState.PROBATION and slots.previous is not None:
            previous = self._try_load(slots.previous)
            if previous is not None:
                self._inspector.swap(previous)
        model = self._try_load(slots.current) if slots.current else None
        if model is not None:
            self._inspector.swap(model)
        elif slots.current is not None:
            self._current_is_broken()
        if self._store.now.state is not UpdateState.PROBATION:
            self._inspector.settle()

    def _try_load(self, slot: Slot) -> LineModel | None:
        try:
            return self._loader.load(slot)
        except Exception as fault:  # noqa: BLE001 - ONNX Runtime raises untyped errors; whatever it is, a box must start
            _log.error("a stored release does not load", release=slot.release, exc_info=fault)
            return None

    def _current_is_broken(self) -> None:
        """Its bytes on disk were good once. It is not rejected: the repository has them intact."""
        slots = self._store.now
        broken, previous = slots.current, slots.previous
        model = self._try_load(previous) if previous else None
        self._store.change(
            current=previous if model else None, previous=None, staged=None, state=UpdateState.ROLLED_BACK
        )
        if model is not None:
            self._inspector.swap(model)
        self._reporter.say(
            UpdateState.ROLLED_BACK,
            attempted=broken.release if broken else None,
            reason=ReportReason.TAMPERED,
            detail="the installed release does not load any more; it will be fetched again",
        )

    # -- checking --------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """One round: is there a release to take, and if so take it up to the start of its probation.

        Raises:
            TransientError: try again later.
            OSError: the box's disk; try again later.
        """
        try:
            try:
                channel = self._releases.check(self._line, self._channel)
            finally:
                self._leave_revoked()  # what is revoked holds also when this check brought nothing
            if self.state is UpdateState.PROBATION or not self._is_news(channel):
                self._clear_trouble()
                return
            self._consider(channel)
        except BlockedError as fault:
            self._store.change(state=UpdateState.BLOCKED)
            self._tell_once(UpdateState.BLOCKED, fault.reason, fault)
        except RefusedError as fault:
            if fault.reason in SECURITY_REASONS:
                self.security_faults += 1
            self._store.change(state=UpdateState.REFUSED)
            self._tell_once(UpdateState.REFUSED, fault.reason, fault)

    def _is_news(self, channel: ChannelManifest) -> bool:
        current = self._store.now.current
        return current is None or channel.release > current.release

    def _consider(self, channel: ChannelManifest) -> None:
        slot = Slot.of(channel)
        verdict = judge(channel, box=self._box(), slots=self._store.now, now=self._clock.now())
        match verdict:
            case Wait(why):
                self._clear_trouble()
                self.trouble = f"release {channel.release} waits: {why}"
            case Refuse(reason, why):
                self._store.change(state=UpdateState.REFUSED)
                self._tell_once(UpdateState.REFUSED, reason, why, attempted=channel.release)
            case Take(activate):
                if slot.same_content(self._store.now.current):
                    self._adopt(slot)
                else:
                    self._take(channel, slot, activate=activate)

    def _adopt(self, slot: Slot) -> None:
        """A higher number for the bytes that already run: nothing to prove."""
        running = self._inspector.current
        if running is not None:
            self._pause_ms = self._inspector.swap(dataclasses.replace(running, release=slot.release))
            self._inspector.settle()
        self._store.change(current=slot, staged=None, state=UpdateState.COMMITTED, attempt=0)
        self._clear_trouble()
        self._reporter.say(UpdateState.COMMITTED, attempted=slot.release, pause_ms=self._pause_ms, parts=0)

    def _take(self, channel: ChannelManifest, slot: Slot, *, activate: bool) -> None:
        again = slot.same_content(self._store.now.staged)
        if again and not activate and self.state is UpdateState.WAITING:
            return
        attempt = self._store.now.attempt if again else 0
        self._store.change(state=UpdateState.DOWNLOADING, staged=slot, attempt=attempt)
        self._releases.fetch(channel)
        self._store.change(state=UpdateState.VERIFIED)
        if not activate:
            self._store.change(state=UpdateState.WAITING)
            self.trouble = f"release {slot.release} is here and waits to be activated"
            return
        self._activate(slot)

    def _activate(self, slot: Slot) -> None:
        self._store.change(state=UpdateState.ACTIVATING, attempt=self._store.now.attempt + 1)
        try:
            model = self._loader.load(slot)
        except CannotLoad as fault:
            self._refuse(slot, fault.reason, fault)
            return
        except (OSError, RefusedError):
            raise
        except Exception as fault:  # noqa: BLE001 - ONNX Runtime raises untyped errors for graphs it cannot run
            _log.error("a verified release does not load", release=slot.release, exc_info=fault)
            self._refuse(slot, ReportReason.BAD_ADAPTER, f"{type(fault).__name__}: {fault}")
            return
        self._store.change(state=UpdateState.PROBATION, previous=self._store.now.current, current=slot, staged=None)
        self._pause_ms = self._inspector.swap(model)
        _log.info("release on probation", release=slot.release, pause_ms=self._pause_ms)
        self._clear_trouble()
        self._begin_trial()

    # -- probation -------------------------------------------------------------------------------------------------

    def _begin_trial(self) -> None:
        slot, model = self._store.now.current, self._inspector.current
        if slot is None or model is None:
            return
        probation = Probation(slot.probe)
        with self._trial_lock:
            self._result = probation.start()
            self._trial = (model, probation)
        if self._result is None:
            self._reporter.say(UpdateState.PROBATION, attempted=slot.release, pause_ms=self._pause_ms)
        else:
            self.conclude()

    def inspected(self, inspection: Inspection, judgement: Judgement, pixels: Pixels | None) -> None:
        """Called for every inspected part, after its verdict went out."""
        trial = self._trial
        if trial is None or inspection.model is not trial[0] or self._result is not None:
            return
        previous = self._inspector.previous
        old = shadow(previous, inspection, pixels) if previous is not None and pixels is not None else None
        with self._trial_lock:
            result = trial[1].add(judgement, old, latency_ms=inspection.latency_ms)
            if result is None or self._result is not None:
                return
            if isinstance(result, Failed) and not self._inspector.revert() and self._dispensable:
                self._inspector.drop()
            self._result = result
        self.wake()

    def conclude(self) -> None:
        """Write down how a finished probation ended."""
        result = self._result
        if result is None:
            return
        match result:
            case Passed(parts):
                self._commit(parts)
            case Failed(parts, why):
                self._roll_back(ReportReason.PROBATION_FAILED, why, parts=parts)
        with self._trial_lock:
            self._trial = self._result = None
        self._loader.collect(self._store.now)

    def _commit(self, parts: int) -> None:
        self._store.change(state=UpdateState.COMMITTED, attempt=0)
        self._inspector.settle()
        slot = self._store.now.current
        _log.info("release committed", release=slot.release if slot else 0, parts=parts)
        self._reporter.say(
            UpdateState.COMMITTED, attempted=slot.release if slot else None, pause_ms=self._pause_ms, parts=parts
        )

    def _roll_back(self, reason: ReportReason, why: str, *, parts: int | None = None) -> None:
        """The slots go back to the previous release; the inspector already did, or has not started."""
        slots = self._store.now
        failed = slots.current
        if failed is None:
            return
        self._store.change(
            state=UpdateState.ROLLED_BACK,
            current=slots.previous,
            previous=None,
            staged=None,
            rejected=slots.with_rejected(self._rejection(failed, reason, why)),
            attempt=0,
        )
        _log.error("release rolled back", release=failed.release, reason=reason.value, why=why)
        self._reporter.say(
            UpdateState.ROLLED_BACK,
            attempted=failed.release,
            reason=reason,
            detail=why,
            pause_ms=self._pause_ms,
            parts=parts,
        )

    # -- refusing, revoking, tidying -------------------------------------------------------------------------------

    def _refuse(self, slot: Slot, reason: ReportReason, why: object) -> None:
        """Never activated, and never tried again on this box."""
        slots = self._store.now
        entry = self._rejection(slot, reason, why)
        self._store.change(state=UpdateState.REFUSED, staged=None, rejected=slots.with_rejected(entry))
        _log.error("release refused", release=slot.release, reason=reason.value, why=str(why))
        self._tell_once(UpdateState.REFUSED, reason, why, attempted=slot.release)

    def _rejection(self, slot: Slot, reason: ReportReason, why: object) -> Rejected:
        return Rejected(
            adapter=slot.adapter, release=slot.release, reason=reason, detail=plain(why), at=self._clock.now()
        )

    def _leave_revoked(self) -> None:
        """A revoked model does not stay, not even as the one to fall back to; see `_keep_revoked` for the exception."""
        slots, revoked = self._store.now, self._releases.revoked(self._line)
        if slots.previous is not None and {slots.previous.adapter, slots.previous.base} & revoked:
            slots = self._store.change(previous=None)
            if self._dispensable:
                self._inspector.settle()
        if slots.current is None or not {slots.current.adapter, slots.current.base} & revoked:
            self._kept_revoked = None
            return
        model = self._try_load(slots.previous) if slots.previous else None
        if model is None and not self._dispensable:
            self._keep_revoked(slots.current.release)
            return
        with self._trial_lock:
            self._trial = self._result = None
        if model is not None:
            self._inspector.swap(model)
            self._inspector.settle()
        else:
            self._inspector.drop()
            self._store.change(previous=None)
        self._roll_back(ReportReason.REVOKED, "revoked by a signed manifest")

    def _keep_revoked(self, release: int) -> None:
        """An uninspected line is worse than a distrusted model: it stays until a release may be taken."""
        if self._kept_revoked == release:
            return
        self._kept_revoked = release
        self._reporter.say(
            UpdateState.BLOCKED, attempted=release, reason=ReportReason.REVOKED, detail="there is none to fall back to"
        )

    def _tell_once(
        self, state: UpdateState, reason: ReportReason, why: object, *, attempted: int | None = None
    ) -> None:
        """Report a trouble when it begins, not at every poll."""
        self.trouble = plain(why)
        if self._said != (state, reason, attempted):
            self._said = (state, reason, attempted)
            self._reporter.say(state, attempted=attempted, reason=reason, detail=why)

    def _clear_trouble(self) -> None:
        self._said = self.trouble = None
        if self.state in (UpdateState.BLOCKED, UpdateState.REFUSED) and self._trial is None:
            self._store.change(state=UpdateState.COMMITTED if self._store.now.current else UpdateState.IDLE)
