"""Runs jobs: lease one, keep the lease alive from a second thread, call its handler, record how it ended.

A handler gets the job and a `Beat`. It reports progress there and asks there whether to go on; both raise when the
worker is stopping or the lease is lost, so a handler that beats between its steps stops within one step. A fault in a
handler ends the run, never the worker.

While no job is due the worker does what can be done ahead of one, in small pieces, so that a job never waits for it.
When there is nothing of that either it runs jobs of its idle kinds, and puts one back as soon as another job is due.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import structlog

from cloud.jobs.schemas import LeasedJob, LeaseLost, NotYet, Overtaken, PermanentFailure, Stopping
from cloud.jobs.service import JobService
from cloud.objects import StoreUnavailable

log = structlog.get_logger(__name__)


class Beat:
    """A running job's line to its lease. Thread-safe."""

    def __init__(self, stop: threading.Event, *, overtaken: Callable[[], bool] = lambda: False) -> None:
        self._stop, self._overtaken = stop, overtaken
        self._lost = threading.Event()
        self.fraction: float | None = None

    @property
    def stopping(self) -> bool:
        """Whether the worker was told to stop; a handler with a checkpoint saves it and raises `Stopping`."""
        return self._stop.is_set()

    def check(self) -> None:
        """Go on, or:

        Raises:
            LeaseLost: another worker has the job.
            Stopping: the worker is told to stop.
            Overtaken: the job only fills idle time, and that is over.
        """
        if self._lost.is_set():
            raise LeaseLost("the lease was lost")
        if self._stop.is_set():
            raise Stopping
        if self._overtaken():
            raise Overtaken

    def progress(self, fraction: float) -> None:
        """Say how far the job is, 0 to 1, and `check`."""
        self.fraction = fraction
        self.check()

    def lose(self) -> None:
        """Called by the renewing thread when the lease is gone."""
        self._lost.set()


Handler = Callable[[LeasedJob, Beat], dict[str, Any]]
"""Does the work and returns the job's result. Must be idempotent; may raise what `cloud.jobs.schemas` names."""

Ahead = Callable[[], Iterator[None]]
"""Starts one pass over what can be prepared. Does a piece before each yield, and holds nothing open across it."""


class Worker:
    """One thread that runs jobs of the kinds it has handlers for."""

    def __init__(
        self, *, jobs: JobService, handlers: Mapping[str, Handler], owner: str, lease_s: float = 60.0,
        poll_s: float = 0.5, ahead: Ahead | None = None, rest_s: float = 5.0,
        idle: Mapping[str, Handler] | None = None,
    ) -> None:  # fmt: skip
        """Args: `owner` must differ between processes, e.g. host name and process id; `rest_s` seconds lie between two
        passes of `ahead`; `idle` are the handlers of kinds that wait until nothing else is to do."""
        self._jobs, self._handlers, self._owner = jobs, dict(handlers), owner
        self._idle = dict(idle or {})
        self._lease_s, self._poll_s = lease_s, poll_s
        self._ahead, self._rest_s = ahead, rest_s
        self._pass: Iterator[None] | None = None
        self._rested_at = float("-inf")
        self.faults = 0

    def run(self, stop: threading.Event) -> None:
        """Run jobs until `stop` is set; a job under way is put back. Never raises."""
        while not stop.is_set():
            try:
                worked = self.run_one(stop) or self.prepare_one() or self.run_idle(stop)
            except Exception:  # the loop's outermost edge: a database that is away must not end the worker
                self.faults += 1
                log.exception("worker_fault", faults=self.faults)
                worked = False
            if not worked:
                stop.wait(self._poll_s)

    def run_one(self, stop: threading.Event | None = None) -> bool:
        """Run at most one job; False when none is due."""
        return self._run_one(self._handlers, Beat(stop or threading.Event()))

    def run_idle(self, stop: threading.Event | None = None) -> bool:
        """Run at most one job of an idle kind; False when none is due. Another job that becomes due ends it."""
        kinds = list(self._handlers)
        return self._run_one(
            self._idle, Beat(stop or threading.Event(), overtaken=lambda: self._jobs.is_due(kinds))
        )  # fmt: skip

    def _run_one(self, handlers: Mapping[str, Handler], beat: Beat) -> bool:
        job = self._jobs.lease(list(handlers), self._owner, self._lease_s) if handlers else None
        if job is None:
            return False
        over = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(job, beat, over), name=f"renew {job.key}", daemon=True)
        renewing.start()
        try:
            end = self._attempt(job, beat, handlers[job.kind])
        finally:
            over.set()
            renewing.join()
        self._record(job, end)
        return True

    def prepare_one(self) -> bool:
        """Do one piece ahead of the jobs to come; False when there is none now."""
        if self._ahead is None or time.monotonic() < self._rested_at:
            return False
        if self._pass is None:
            self._pass = self._ahead()
        try:
            next(self._pass)
        except StopIteration:
            self._rest()
            return False
        except StoreUnavailable as fault:
            self._rest()
            log.warning("not_prepared", reason=str(fault))
            return False
        except Exception:
            self._rest()
            raise
        return True

    def _rest(self) -> None:
        self._pass, self._rested_at = None, time.monotonic() + self._rest_s

    def _renew(self, job: LeasedJob, beat: Beat, over: threading.Event) -> None:
        while not over.wait(self._lease_s / 3):
            try:
                self._jobs.renew(job, self._lease_s, beat.fraction)
            except LeaseLost:
                log.warning("job_taken_over", job=job.key)
                beat.lose()
                return
            except Exception:  # a thread's outermost edge: the lease may outlast a short database fault
                self.faults += 1
                log.exception("lease_not_renewed", job=job.key)

    def _attempt(self, job: LeasedJob, beat: Beat, handler: Handler) -> Callable[[], None]:
        """Run the handler; returns what to record."""
        log.info("job_starts", job=job.key, run=job.attempt)
        try:
            result = handler(job, beat)
        except LeaseLost:
            return lambda: None
        except (Stopping, Overtaken):
            return lambda: self._jobs.put_back(job)
        except NotYet as wait:
            reason, delay_s = str(wait), wait.delay_s
            return lambda: self._jobs.put_back(job, reason, delay_s=delay_s)
        except PermanentFailure as fault:
            log.warning("job_failed_for_good", job=job.key, reason=str(fault))
            text = str(fault)
            return lambda: self._give_up(job, text)
        except Exception as fault:  # a handler's outermost edge: the run fails, the worker does not
            self.faults += 1
            log.exception("job_failed", job=job.key, run=job.attempt)
            text = f"{type(fault).__name__}: {fault}"
            return lambda: self._retry(job, text)
        return lambda: self._jobs.finish(job, result)

    def _give_up(self, job: LeasedJob, error: str) -> None:
        self._jobs.fail(job, error, retry=False)

    def _retry(self, job: LeasedJob, error: str) -> None:
        again = self._jobs.fail(job, error)
        log.warning("job_retried" if again else "job_given_up", job=job.key)

    def _record(self, job: LeasedJob, end: Callable[[], None]) -> None:
        try:
            end()
        except LeaseLost:
            log.warning("job_ended_without_lease", job=job.key)
