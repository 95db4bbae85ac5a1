"""What a model IS: the frozen base, and the adapter release that makes it a line's inspector.

A base is built once and travels rarely. An adapter release is LoRA weights, class head, thresholds, prototypes
and golden outputs, all bound to one base by the digest of its manifest. Blobs are named by SHA-256; a manifest
never holds a path on a machine.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.contracts.base import (
    Count,
    Finite,
    Identifier,
    Manifest,
    Positive,
    Probability,
    Sha256,
    Text,
    Timestamp,
)

MAX_ADAPTER_BYTES = 64 << 20
MAX_HEAD_BYTES = 16 << 20
MAX_REFS_BYTES = 64 << 20
MAX_BASE_FILE_BYTES = 8 << 30
MAX_CLASSES = 256

Dim = Annotated[int, Field(ge=1, le=1 << 24)]


class Blob(Manifest):
    """Bytes by digest. `length` is checked before the first byte is fetched."""

    sha256: Sha256
    length: Positive


class Chunk(Manifest):
    sha256: Sha256
    length: Positive


class BaseFile(Manifest):
    """One file of a base. Chunk borders lie on tensor borders, so an unchanged layer costs nothing to update."""

    role: Literal["tower", "trunk", "golden", "data"]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    sha256: Sha256
    length: Annotated[int, Field(ge=1, le=MAX_BASE_FILE_BYTES)]
    chunks: list[Chunk] = Field(min_length=1, max_length=4096)

    @model_validator(mode="after")
    def _chunks_tile_the_file(self) -> BaseFile:
        if sum(chunk.length for chunk in self.chunks) != self.length:
            raise ValueError(f"the chunks of {self.name} do not add up to its length")
        return self


class Preprocessing(Manifest):
    """Input to the tower, computed by one numpy function for training, gate and edge.

    Grey or colour pixels -> RGB -> region of interest (x, y, width, height as fractions) -> area resize to
    `height` x `width` -> ``(pixel - mean) / std`` per channel, on the 0-255 scale -> float32 NCHW.
    """

    version: Literal[1] = 1
    width: Dim
    height: Dim
    mean: tuple[Finite, Finite, Finite]
    std: tuple[Finite, Finite, Finite]
    roi: tuple[Probability, Probability, Probability, Probability] | None = None


class TensorSpec(Manifest):
    """A named tensor with a fixed shape."""

    name: Text
    shape: list[Dim] = Field(max_length=4)
    dtype: Literal["float32", "float16"] = "float32"


class BaseManifest(Manifest):
    """A quantized, frozen base: tower pixels -> image tokens, trunk (image tokens, LoRA) -> embedding, evidence.

    `lora` lists the trunk's overridable inputs; their defaults are zeros, which is the bare base.
    `pretrained` says where weights came from; "none" means random, and every table must say so.
    """

    schema_version: Literal[1] = 1
    kind: Literal["base"] = "base"
    family: Identifier
    version: Positive
    preset: Text
    tower_kind: Literal["siglip", "efficientnet_lite"]
    preprocessing: Preprocessing
    embedding: Dim
    grid: tuple[Dim, Dim]
    token_width: Dim
    files: list[BaseFile] = Field(min_length=2, max_length=64)
    lora: list[TensorSpec] = Field(max_length=4096)
    quantization: Text
    opset: Positive
    parameters: Positive
    pretrained: Text
    licence: Text
    built_with: dict[Text, Text] = Field(default_factory=dict)
    training: dict[Text, Finite | Text] = Field(default_factory=dict)
    created_at: Timestamp

    def file(self, role: Literal["tower", "trunk", "golden", "data"]) -> BaseFile:
        """The file with that role.

        Raises:
            KeyError: the base has none.
        """
        for file in self.files:
            if file.role == role:
                return file
        raise KeyError(f"base {self.family} v{self.version} has no {role} file")


class ClassSpec(Manifest):
    """One class of a line. A must-catch class may never be newly missed by an update."""

    name: Text
    defect: bool
    must_catch: bool = False


class HeadSpec(Manifest):
    """The class head, applied to the embedding outside the graph: a new class is a new row, never a new graph.

    linear: ``z = W f + bias``. cosine: ``z = scale * W/|W| . f/|f|``. ridge: ``z = W relu(R f) + bias`` with R drawn
    from `projection_seed` (RanPAC, McDonnell et al., NeurIPS 2023). Probabilities are ``softmax(z / temperature)``.
    Arrays in the blob: ``weight`` [classes, embedding or projection], ``bias`` [classes].
    """

    kind: Literal["linear", "cosine", "ridge"]
    classes: list[ClassSpec] = Field(min_length=2, max_length=MAX_CLASSES)
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    projection_seed: Count | None = None
    projection_width: Dim | None = None
    blob: Blob

    @model_validator(mode="after")
    def _has_a_good_and_a_defect_class(self) -> HeadSpec:
        names = [spec.name for spec in self.classes]
        if len(set(names)) != len(names):
            raise ValueError("two classes share a name")
        if all(spec.defect for spec in self.classes) or not any(spec.defect for spec in self.classes):
            raise ValueError("a line needs at least one good and one defect class")
        if self.kind == "ridge" and (self.projection_seed is None or self.projection_width is None):
            raise ValueError("a ridge head needs projection_seed and projection_width")
        return self


class Thresholds(Manifest):
    """Cuts on the defect score. Below `pass_below` the part passes, from `reject_above` it is rejected, between a
    person looks. `call_at` is the forced call by which accuracy is counted when a part was UNSURE.
    """

    pass_below: Probability
    reject_above: Probability
    call_at: Probability

    @model_validator(mode="after")
    def _ordered(self) -> Thresholds:
        if not self.pass_below <= self.call_at <= self.reject_above:
            raise ValueError("thresholds must satisfy pass_below <= call_at <= reject_above")
        return self


class CascadeCuts(Manifest):
    """Cuts on this model's defect score when it is the gate in front of a bigger one. Below `certain_pass_below` the
    part passes here, from `certain_reject_above` it is rejected here; between them the big model decides. A cut that is
    absent ends nothing on its side. `calibrated_against` is the digest of the big model's adapter manifest.
    """

    certain_pass_below: Probability | None = None
    certain_reject_above: Probability | None = None
    calibrated_against: Sha256 | None = None

    @model_validator(mode="after")
    def _ordered(self) -> CascadeCuts:
        below, above = self.certain_pass_below, self.certain_reject_above
        if below is not None and above is not None and below > above:
            raise ValueError("cascade cuts must satisfy certain_pass_below <= certain_reject_above")
        return self


class ExposureLimits(Manifest):
    """Frames outside these limits are not judged. Grey levels 0-255; sharpness is the Laplacian's variance."""

    min_mean: Finite = 4.0
    max_mean: Finite = 251.0
    min_contrast: Finite = 1.0
    reference_mean: Finite | None = None


class Golden(Manifest):
    """Frames with known outputs. The box must reproduce `embedding` and `probs` (arrays in the refs blob) within
    the tolerances before it activates, and must differ from the bare base by at least `min_base_distance`.
    """

    count: Positive
    embedding_tolerance: Finite
    prob_tolerance: Finite
    min_base_distance: Finite = 0.0


class AdapterSpec(Manifest):
    """LoRA weights in an ``.onnx_adapter`` file; ``alpha / r`` is folded into B by the publisher."""

    blob: Blob
    rank: Positive
    dtype: Literal["float32", "float16"]


class Lineage(Manifest):
    """From a release back to labels: enough to rebuild it, or to prove that a sample is not in it."""

    training_run: Text
    parent_release: Count | None = None
    label_snapshot: Sha256 | None = None
    labels: Count = 0
    gate_report: Sha256 | None = None
    code_version: Text
    seed: Count
    trained_at: Timestamp


class AdapterManifest(Manifest):
    """One immutable adapter release of a line. `release` here is its own number; which one runs is the channel's say.

    Arrays in `refs`: ``prototypes`` [P, embedding] unit rows, ``golden.embedding`` [G, embedding],
    ``golden.probs`` [G, classes].
    """

    schema_version: Literal[1] = 1
    kind: Literal["adapter"] = "adapter"
    line: Identifier
    release: Positive
    model_version: Text
    base: Sha256
    base_family: Identifier
    adapter: AdapterSpec | None = None
    head: HeadSpec
    thresholds: Thresholds
    exposure: ExposureLimits = Field(default_factory=ExposureLimits)
    refs: Blob
    golden: Golden
    roi: tuple[Probability, Probability, Probability, Probability] | None = None
    cascade: CascadeCuts | None = None
    lineage: Lineage
    created_at: Timestamp

    @model_validator(mode="after")
    def _certain_verdicts_agree_with_the_call(self) -> AdapterManifest:
        cuts, call_at = self.cascade, self.thresholds.call_at
        if cuts is None:
            return self
        below, above = cuts.certain_pass_below, cuts.certain_reject_above
        if (below is not None and below > call_at) or (above is not None and above < call_at):
            raise ValueError("cascade cuts must lie on both sides of thresholds.call_at")
        return self

    @model_validator(mode="after")
    def _sizes_are_sane(self) -> AdapterManifest:
        for what, blob, limit in (
            ("adapter", self.adapter.blob if self.adapter else None, MAX_ADAPTER_BYTES),
            ("head", self.head.blob, MAX_HEAD_BYTES),
            ("refs", self.refs, MAX_REFS_BYTES),
        ):
            if blob is not None and blob.length > limit:
                raise ValueError(f"the {what} blob is {blob.length} bytes, {limit} allowed")
        return self

    def blobs(self) -> list[Blob]:
        """Every blob the release needs beside its base."""
        return [*([self.adapter.blob] if self.adapter else []), self.head.blob, self.refs]
