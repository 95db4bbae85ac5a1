"""One full example of every payload and manifest. Its bytes are the golden files; every optional field is set once."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel

from models.contracts.base import sha256_hex
from models.contracts.chunk import Chunk, encode_chunk
from models.contracts.control import (
    Announce,
    CheckUpdate,
    Command,
    DeviceReport,
    ReportReason,
    SelectionBudget,
    SignedReport,
    UpdateState,
)
from models.contracts.model_manifest import (
    AdapterManifest,
    AdapterSpec,
    BaseFile,
    BaseManifest,
    Blob,
    CascadeCuts,
    ClassSpec,
    ExposureLimits,
    Golden,
    HeadSpec,
    Lineage,
    Preprocessing,
    TensorSpec,
    Thresholds,
)
from models.contracts.model_manifest import Chunk as FileChunk
from models.contracts.release_manifest import (
    ChannelManifest,
    Failures,
    Probe,
    Requires,
    RolloutPlan,
    TargetRef,
    Wave,
    Window,
)
from models.contracts.sample import (
    CannotJudge,
    ClockState,
    Decision,
    Exposure,
    ImageInfo,
    ModelRef,
    Part,
    SampleMeta,
    Selection,
    SelectionParts,
    Stratum,
    Verdict,
)
from models.contracts.telemetry import (
    Aggregate,
    AggregateCell,
    CameraHealth,
    CascadeHealth,
    CascadeSums,
    DriftAlarm,
    EstimatedShare,
    Flag,
    Heartbeat,
    Pending,
    Presence,
)
from models.contracts.uplink import (
    Ack,
    AckItem,
    IngestLimits,
    IngestState,
    Loss,
    LossRange,
    LossReason,
    Offer,
    OfferItem,
    Priority,
    Put,
    RecordAck,
    Result,
    bitmap_encode,
)

AT = datetime(2026, 3, 2, 8, 0, 0, 123456, tzinfo=UTC)
SID = "019cad8f-ac00-7abc-8def-0123456789ab"
OTHER = "019cad8f-ac01-7abc-8def-0123456789ab"
EPOCH = "00f1e2d3c4b5a697"
SHA = {name: f"{i:x}" * 64 for i, name in enumerate(("image", "base", "adapter", "head", "thresholds", "refs"), 1)}

META = SampleMeta(
    sid=SID,
    edge="edge-1",
    epoch=EPOCH,
    seq=42,
    line="cells",
    camera="cam-1",
    part=Part(serial="A-0042", lot="L7", product="60-cell", shift="early", trigger=42),
    captured_at=AT,
    captured_mono_ns=123_456_789,
    clock=ClockState(ok=True, source="ntp", offset_ms=-0.4),
    image=ImageInfo(sha256=SHA["image"], size=300_000, type="image/png", width=300, height=300),
    exposure=Exposure(mean=101.5, contrast=33.25, sharpness=812.0, shift=-1.5, exposure_us=4000, gain_db=3.0),
    decision=Decision(
        verdict=Verdict.UNSURE,
        predicted="Riß 裂纹",
        confidence=0.625,
        defect_score=0.625,
        scores={"good": 0.375, "Riß 裂纹": 0.625},
        latency_ms=11.75,
    ),
    model=ModelRef(
        release=3,
        base=SHA["base"],
        adapter=SHA["adapter"],
        head=SHA["head"],
        thresholds=SHA["thresholds"],
        prototypes=SHA["refs"],
    ),
    selection=Selection(
        stratum=Stratum.HARD,
        pi_select=0.25,
        policy="hard-v1",
        parts=SelectionParts(
            margin=0.25,
            novelty=0.5,
            disagreement=0.0,
            u=0.55,
            floor=0.02,
            pace=1.5,
            near_duplicate_of=OTHER,
            draw=0.125,
        ),
    ),
    evidence=[0.0, 0.5, 1.0, 0.25],
    evidence_grid=(2, 2),
)
UNJUDGED = META.model_copy(
    update={
        "decision": Decision(verdict=Verdict.UNSURE, cannot_judge=CannotJudge.UNREADABLE, latency_ms=1.0),
        "image": ImageInfo(sha256=SHA["image"], size=3, type="application/octet-stream"),
        "exposure": None,
        "evidence": None,
        "evidence_grid": None,
    }
)
OFFER = Offer(
    edge="edge-1",
    epoch=EPOCH,
    items=[
        OfferItem(
            sid=SID,
            seq=42,
            sha256=SHA["image"],
            size=300_000,
            type="image/png",
            meta_sha=sha256_hex(META.encode()),
            meta=META.model_dump(mode="json", exclude_none=True),
            prio=Priority.HARD,
            pi_survive=0.5,
            captured_at=AT,
            clock_ok=True,
            max_chunk=61_440,
        )
    ],
)
ACK = Ack(
    edge="edge-1",
    epoch=EPOCH,
    items=[
        AckItem(sid=SID, result=Result.WANT, chunks=bitmap_encode({0, 2}, 3), chunk=122_880),
        AckItem(
            sid=OTHER,
            result=Result.WANT,
            put=Put(url="https://s3.example/staging/1?sig=x", headers={"x-amz-acl": "private"}, expires_at=AT),
        ),
        AckItem(sid=SID, result=Result.LATER, retry_after_s=60, detail="quota"),
        AckItem(sid=SID, result=Result.NO, code="digest"),
        AckItem(sid=SID, result=Result.STORED),
        AckItem(sid=SID, result=Result.HAVE),
    ],
    records=[RecordAck(id=SID, result="stored"), RecordAck(id=OTHER, result="no", code="malformed")],
    credit_bytes=1 << 20,
)
LOSS = Loss(
    id=SID,
    edge="edge-1",
    epoch=EPOCH,
    ranges=[LossRange(first=1 + i, last=1 + i, reason=r, policy="why") for i, r in enumerate(LossReason)],
    declared_at=AT,
)
HEARTBEAT = Heartbeat(
    edge="edge-1",
    epoch=EPOCH,
    sent_at=AT,
    clock_ok=True,
    version="0.1.0",
    line="cells",
    max_seq=42,
    pending=Pending(n=3, bytes=900_000, oldest_age_s=12.5),
    pending_ranges=[(1, 2), (42, 42)],
    pending_complete=True,
    lost={"thinned": 5},
    inspected=1000,
    selected=47,
    dropped_frames=0,
    release=3,
    adapter=SHA["adapter"],
    previous=2,
    update_state="idle",
    spool="ok",
    disk_free=10**11,
    rss_bytes=200 << 20,
    latency_p50_ms=11.5,
    latency_p99_ms=25.0,
    resent_bytes=122_880,
    cameras={"cam-1": CameraHealth(state="ok", frames=1000, age_s=0.5, detail="folder")},
)
AGGREGATE = Aggregate(
    id=SID,
    edge="edge-1",
    epoch=EPOCH,
    number=7,
    line="cells",
    period_start=AT,
    period_end=AT,
    period=492_344,
    cells=[
        AggregateCell(
            camera="cam-1",
            release=3,
            product="60-cell",
            predicted="good",
            n=120,
            n_selected=6,
            verdicts={Verdict.PASS: 110, Verdict.REJECT: 4, Verdict.UNSURE: 6},
            sum_g=110.5,
            sum_g2=103.25,
            sum_defect=9.5,
            hist=[100, *[1] * 18, 2],
        )
    ],
)
REPORT = DeviceReport(
    id=SID,
    edge="edge-1",
    line="cells",
    counter=9,
    state=UpdateState.ROLLED_BACK,
    release=2,
    attempted=3,
    loaded=SHA["adapter"],
    previous=1,
    reason=ReportReason.PROBATION_FAILED,
    detail="disagreement 0.4",
    attempt=1,
    swap_pause_ms=3.5,
    parts_in_probation=20,
    sent_at=AT,
)
BASE = BaseManifest(
    family="nano",
    version=1,
    preset="nano",
    tower_kind="efficientnet_lite",
    preprocessing=Preprocessing(
        width=224, height=224, mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0), roi=(0.0, 0.0, 1.0, 1.0)
    ),
    embedding=256,
    grid=(7, 7),
    token_width=256,
    files=[
        BaseFile(
            role=role,
            name=f"{role}.onnx",
            sha256=SHA["base"],
            length=10,
            chunks=[FileChunk(sha256=SHA["base"], length=10)],
        )
        for role in ("tower", "trunk")
    ],
    lora=[TensorSpec(name="layers.0.q.A", shape=[8, 256])],
    quantization="w8a8-per-token",
    opset=20,
    parameters=7_000_000,
    pretrained="efficientnet-lite0 ImageNet",
    licence="Apache-2.0",
    built_with={"torch": "2.9"},
    training={"epochs": 3.0, "seed": "0"},
    created_at=AT,
)
ADAPTER = AdapterManifest(
    line="cells",
    release=3,
    model_version="cells-r3",
    base=SHA["base"],
    base_family="nano",
    adapter=AdapterSpec(blob=Blob(sha256=SHA["adapter"], length=1_000_000), rank=8, dtype="float16"),
    head=HeadSpec(
        kind="ridge",
        classes=[ClassSpec(name="good", defect=False), ClassSpec(name="defect", defect=True, must_catch=True)],
        temperature=1.5,
        projection_seed=1,
        projection_width=2000,
        blob=Blob(sha256=SHA["head"], length=5000),
    ),
    thresholds=Thresholds(pass_below=0.25, reject_above=0.75, call_at=0.5),
    exposure=ExposureLimits(reference_mean=100.0),
    refs=Blob(sha256=SHA["refs"], length=9000),
    golden=Golden(count=8, embedding_tolerance=0.02, prob_tolerance=0.02, min_base_distance=0.001),
    roi=(0.1, 0.1, 0.8, 0.8),
    lineage=Lineage(
        training_run="run-9",
        parent_release=2,
        label_snapshot=SHA["refs"],
        labels=300,
        gate_report=SHA["head"],
        code_version="0.1.0",
        seed=7,
        trained_at=AT,
    ),
    created_at=AT,
)
CHANNEL = ChannelManifest(
    line="cells",
    channel="stable",
    release=4,
    model_version="cells-r3",
    base=TargetRef(path="base/nano/v1.manifest.json", sha256=SHA["base"], length=2000),
    adapter=TargetRef(path="adapter/cells/r000003.manifest.json", sha256=SHA["adapter"], length=3000),
    requires=Requires(hardware=["x86_64"], min_agent="0.1.0", memory_mb=350, disk_mb=100),
    probe=Probe(latency_p95_ms=50.0, probation_parts=20, max_disagreement=0.3, max_unjudged=0.2),
    plan=RolloutPlan(
        salt="s",
        canaries=["edge-1"],
        waves=[Wave(percent=10.0, min_devices=1, bake_s=60, min_parts=20), Wave(percent=100.0)],
        wave=1,
        success_percent=95.0,
        max_failures=Failures(count=2, percent=2.0, min_sample=3),
        mode="soft",
        window=Window(tz="Europe/Berlin", days=[0, 1], start_minute=60, minutes=120),
        state="running",
        approval="after_canary",
        not_before=AT,
    ),
    rollback_of=3,
    reason="escape rate",
    actor="chen",
    revoked=[SHA["head"]],
    min_release=1,
    max_age_s=86_400,
    created_at=AT,
)

SUMS = CascadeSums(
    n_pass=900, n_reject=60, n_escalated=100, n_late=3, n_audited=20, n_audits_lost=1, escapes=1, unsures=2,
    sum_w=1000.0, sum_w2=50_000.0, sum_w_escape=50.0, sum_w_unsure=100.0,
)  # fmt: skip
GATED = CascadeHealth(
    gate_line="cells-gate", release=7, update_state="committed", trouble="no cuts", sums=SUMS,
    escape=EstimatedShare(rate=0.05, low=0.00125, high=0.25), overkill=EstimatedShare(rate=0.0, low=0.0, high=0.17),
    unsure=EstimatedShare(rate=0.1, low=0.0125, high=0.32),
)  # fmt: skip
CUTS = CascadeCuts(certain_pass_below=0.05, certain_reject_above=0.97, calibrated_against=SHA["head"])

EXAMPLES: dict[str, BaseModel] = {
    "sample_meta": META,
    "sample_meta_unjudged": UNJUDGED,
    "offer": OFFER,
    "ack": ACK,
    "loss": LOSS,
    "ingest_state": IngestState(
        online=True,
        instance="i-1",
        versions=[1],
        limits=IngestLimits(chunk_bytes=61_440, sample_bytes=8 << 20, offer_items=8, unsolicited_bytes=1 << 18),
    ),
    "heartbeat": HEARTBEAT,
    "presence": Presence(edge="edge-1", online=True, version="0.1.0"),
    "aggregate": AGGREGATE,
    "flag": Flag(
        id=SID,
        edge="edge-1",
        line="cells",
        sid=OTHER,
        serial="A-0042",
        reason="crack missed",
        claimed="defect",
        flagged_at=AT,
    ),
    "drift_alarm": DriftAlarm(statistic="ks", value=0.4, limit=0.3, p_value=0.001),
    "announce": Announce(timestamp_version=12, release=4, channel="stable"),
    "command_check_update": Command(id=SID, edge="edge-1", issued_at=AT, order=CheckUpdate()),
    "command_selection_budget": Command(
        id=SID,
        edge="edge-1",
        issued_at=AT,
        order=SelectionBudget(line="cells", bytes_per_hour=64 << 20, audit_share=0.3),
    ),
    "device_report": REPORT,
    "signed_report": SignedReport(id=SID, edge="edge-1", body=REPORT.encode().decode(), signature="MEUCIQ=="),
    "base_manifest": BASE,
    "adapter_manifest": ADAPTER,
    "channel_manifest": CHANNEL,
    "sample_meta_gate": META.model_copy(update={"model": META.model.model_copy(update={"gate": 7})}),
    "sample_meta_region": META.model_copy(update={"evidence_roi": (0.25, 0.1, 0.5, 0.8)}),
    "heartbeat_cascade": HEARTBEAT.model_copy(update={"cascade": GATED}),
    "aggregate_cascade": AGGREGATE.model_copy(update={"cascade": SUMS}),
    "adapter_manifest_gate": ADAPTER.model_copy(update={"cascade": CUTS}),
}
CHUNK = Chunk(sid=SID, index=2, count=3, size=16_384, data=bytes(range(256)) * 8)
CHUNK_BYTES = encode_chunk(CHUNK)
