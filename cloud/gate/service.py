"""Judges a candidate: load the exported files, score them and the incumbent's on the line's gate set, decide, endorse.

Order, so that a crash anywhere is finished by running the job again: the decision with its report; the second
signature; a `release` job. The gate has no channel key: the cloud process takes that job and starts the rollout.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sqlalchemy import select

from cloud.clock import NowUs
from cloud.db.session import Begin
from cloud.db.tables import Candidate
from cloud.gate.endorse import Endorser, WrongProposal, check_proposal
from cloud.gate.evaluate import TokenCache, call, latency_ms, score
from cloud.gate.evidence import Evidence, Judged, gate_set_name
from cloud.gate.report import build, judge, metric
from cloud.gate.settings import GateSettings
from cloud.jobs.schemas import LeasedJob, PermanentFailure
from cloud.jobs.service import JobService
from cloud.jobs.worker import Beat
from cloud.lines.ports import Blobs
from cloud.lines.schemas import FOR_EVER, LineView, ReferenceImage
from cloud.lines.service import LineService
from cloud.objects import StoreUnavailable
from cloud.registry.loading import ModelLoader
from cloud.registry.schemas import manifest_of, release_bytes
from cloud.registry.service import RegistryService
from models.contracts.base import canonical, sha256_hex
from models.contracts.model_manifest import AdapterManifest
from models.runtime.adapter import BadAdapter
from models.runtime.base import BadBase, SessionLimits
from models.runtime.heads import BadArrays
from models.runtime.inspector import WrongBase
from ota.errors import PublishError

RELEASE = "release"
KNOWN = 8
"""Judged releases kept: today's candidate is tomorrow's incumbent, and need not be scored again."""
BROKEN = (BadAdapter, BadArrays, BadBase, WrongBase)


def identity(manifest: AdapterManifest) -> str:
    """A digest of everything that decides a model's calls: two releases with the same one are the same model."""
    parts = {
        "base": manifest.base,
        "adapter": manifest.adapter.blob.sha256 if manifest.adapter else None,
        "head": manifest.head.model_dump(mode="json"),
        "thresholds": manifest.thresholds.model_dump(mode="json"),
        "roi": manifest.roi,
        "exposure": manifest.exposure.model_dump(mode="json"),
    }
    return sha256_hex(canonical(parts))


class GateService:
    """See the module. One instance per worker process: it keeps bases and frames between jobs."""

    def __init__(
        self, *, begin: Begin, reads: Begin, now: NowUs, lines: LineService, registry: RegistryService,
        jobs: JobService, blobs: Blobs, repository: Endorser, key: Any, settings: GateSettings | None = None,
        limits: SessionLimits | None = None, cache: TokenCache | None = None,
    ) -> None:  # fmt: skip
        """Args: `key` is the gate's online Signer; `limits` are ONNX Runtime's."""
        self._begin, self._reads, self._now = begin, reads, now
        self._lines, self._registry, self._jobs, self._blobs = lines, registry, jobs, blobs
        self._repository, self._key, self._settings = repository, key, settings or GateSettings()
        self._models = ModelLoader(registry=registry, blobs=blobs, limits=limits)
        self._cache = cache or TokenCache()
        self._known: OrderedDict[tuple[str, tuple[str, ...], tuple[str, ...]], Judged] = OrderedDict()
        self._seen: set[tuple[str, Any, str]] = set()

    def ahead(self) -> Iterator[None]:
        """Read every line's gate images with its tower, those of a coming product too, an image at a time.

        Each is read once: a set that is larger than the cache must not go round in it for ever.
        """
        for line in self._lines.all():
            stored = self._registry.current_base(line.name)
            if stored is None:
                continue
            base, incumbent = self._models.base(stored.sha), self._registry.incumbent(line.name)
            roi = None if incumbent is None else manifest_of(incumbent).roi
            for image in self._lines.references(line.name, "gate", FOR_EVER):
                key = (stored.sha, roi, image.sha256)
                if key in self._seen:
                    continue
                self._seen.add(key)
                try:
                    self._cache.frame(base, roi, image.sha256, self._blobs.read)
                except StoreUnavailable:
                    self._seen.discard(key)
                    raise
                yield

    def handle(self, job: LeasedJob, beat: Beat) -> dict[str, Any]:
        """Handler of "gate" jobs; the payload is ``{"candidate": id}``.

        Raises:
            PermanentFailure: the proposal cannot be endorsed any more.
        """
        candidate = self._registry.candidate(int(job.payload["candidate"]))
        if candidate.state == "trained":
            report = self.evaluate(candidate, beat=beat)
            candidate = self._registry.decide(candidate.id, report["accepted"], report)
        beat.progress(0.9)
        if candidate.state == "accepted":
            self._endorse(candidate)
            self._ask_for_release(candidate)
        return {"candidate": candidate.id, "state": candidate.state, "summary": candidate.report.get("summary", "")}

    def renew(self, job: LeasedJob, _beat: Beat) -> dict[str, Any]:
        """Handler of "renew" jobs: the trainer's proposal to keep the adapter role as it is for another week.

        The payload is ``{"line", "proposal"}``, the proposal in base64.

        Raises:
            PermanentFailure: it lists something the gate did not accept, or the role moved on.
        """
        line = str(job.payload["line"])
        try:
            return {"version": self._sign(line, base64.b64decode(job.payload["proposal"]), release=None)}
        except (WrongProposal, PublishError) as fault:
            raise PermanentFailure(f"the adapter role of line {line} was not renewed: {fault}") from fault

    def evaluate(self, candidate: Candidate, *, beat: Beat | None = None) -> dict[str, Any]:
        """The report on a candidate, without deciding. A file a box would refuse is a refusal, not an error."""
        line = self._lines.get(candidate.line)
        images = self._lines.references(candidate.line, "gate", self._now())
        incumbent = self._registry.incumbent(candidate.line)
        if incumbent is not None and incumbent.id == candidate.id:
            incumbent = None
        tick = (lambda: None) if beat is None else beat.check
        try:
            new = self._judged(candidate, line, images, tick, timed=True)
        except BROKEN as fault:
            return _broken(f"{type(fault).__name__}: {fault}")
        old = None if incumbent is None else self._judged(incumbent, line, images, tick, timed=False)
        evidence = self._evidence(line, images, candidate, new, old)
        return build(evidence, judge(evidence))

    def _judged(
        self, one: Candidate, line: LineView, images: list[ReferenceImage], tick: Callable[[], None], *, timed: bool
    ) -> Judged:
        names = [spec.name for spec in line.class_specs]
        key = (one.manifest_sha, tuple(image.sha256 for image in images), tuple(names))
        if not timed and key in self._known:
            return self._known[key]
        manifest = manifest_of(one)
        model = self._models.load(manifest, release=one.release)
        scores = score(model, images, self._blobs.read, self._cache, beat=tick)
        judged = Judged(
            release=one.release,
            scores=scores,
            calls=call(scores, model.head, manifest.thresholds, names),
            size=release_bytes(manifest),
            latency=latency_ms(model, images, self._blobs.read) if timed else np.zeros(0),
            has_adapter=manifest.adapter is not None,
            identity=identity(manifest),
            cuts=manifest.cascade,
        )
        self._known[key] = judged
        while len(self._known) > KNOWN:
            self._known.popitem(last=False)
        return judged

    def _evidence(
        self, line: LineView, images: list[ReferenceImage], candidate: Candidate, new: Judged, old: Judged | None
    ) -> Evidence:
        classes = line.class_specs
        place = {spec.name: i for i, spec in enumerate(classes)}
        truth = np.array([place[image.label] for image in images], dtype=np.int64)
        listed = [image.must_catch or classes[c].must_catch for image, c in zip(images, truth, strict=True)]
        defect = np.array([classes[c].defect for c in truth], dtype=bool)
        return Evidence(
            classes=classes, truth=truth, domains=[i.domain for i in images], groups=[i.group for i in images],
            must_catch=np.array(listed, dtype=bool) & defect, digests=[i.sha256 for i in images],
            candidate=new, incumbent=old, measured=candidate.metrics, limits=self._settings,
            best=self._best(candidate.line, gate_set_name([i.sha256 for i in images], truth)),
        )  # fmt: skip

    def _best(self, line: str, gate_set: str) -> tuple[int, float] | None:
        """The best published release by macro-F1, of those judged on this gate set."""
        query = select(Candidate).where(Candidate.line == line, Candidate.state == "published")
        with self._reads() as session:
            found = [
                (metric(row.report, "macro_f1"), row.release)
                for row in session.scalars(query)
                if row.report.get("gate_set", {}).get("sha256") == gate_set
            ]
        scored = [(value, release) for value, release in found if value is not None]
        return None if not scored else (max(scored)[1], max(scored)[0])

    def _endorse(self, candidate: Candidate) -> None:
        try:
            self._sign(candidate.line, candidate.proposal, release=candidate.release)
        except (WrongProposal, PublishError) as fault:
            text = f"adapter release {candidate.release} of line {candidate.line} was accepted but not signed: {fault}"
            raise PermanentFailure(text) from fault

    def _sign(self, line: str, proposal: bytes, *, release: int | None) -> int:
        check_proposal(proposal, line, self._approved(line), release=release)
        return self._repository.endorse_adapter(line, proposal, self._key)

    def _approved(self, line: str) -> dict[int, str]:
        query = select(Candidate.release, Candidate.manifest_sha).where(
            Candidate.line == line, Candidate.state.in_(("accepted", "published", "revoked"))
        )
        with self._reads() as session:
            return {row.release: row.manifest_sha for row in session.execute(query)}

    def _ask_for_release(self, candidate: Candidate) -> None:
        key = f"{RELEASE}/{candidate.line}/{candidate.release}"
        payload = {
            "line": candidate.line,
            "adapter_release": candidate.release,
            "reason": candidate.report.get("summary", "")[:250],
        }
        with self._begin() as session:
            self._jobs.enqueue(session, RELEASE, key, payload)


def _broken(fault: str) -> dict[str, Any]:
    text = f"a box would refuse these files: {fault}."
    return {
        "schema": 1,
        "accepted": False,
        "summary": f"Refused: [files] {text}",
        "findings": [{"rule": "files", "passed": False, "text": text, "numbers": {}}],
    }
