"""Where published bytes lie below ``targets/``: the one rule that publisher and box share beside the contracts."""

from __future__ import annotations

from models.contracts.model_manifest import AdapterManifest, Blob
from models.contracts.tuf_layout import adapter_blob_path


def hashed_path(path: str, sha256: str) -> str:
    """A target's path with its digest in front of the last part (TUF consistent snapshot)."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{sha256}.{name}"


def blob_paths(manifest: AdapterManifest) -> dict[str, Blob]:
    """Target path per blob of an adapter release."""
    kinds = {"head": manifest.head.blob, "refs": manifest.refs}
    if manifest.adapter is not None:
        kinds["onnx_adapter"] = manifest.adapter.blob
    return {adapter_blob_path(manifest.line, manifest.release, kind): blob for kind, blob in kinds.items()}
