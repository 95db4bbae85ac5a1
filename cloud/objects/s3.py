"""The object store on any S3 server, by the `minio` client.

`minio` 7.2 takes no request headers on a put, so create-only is: look first, put if absent. A lost race writes the same
bytes under the same digest, which is harmless. After a put the object is looked at again: a store that answered 200 and
kept half of it is found before anything is acknowledged. The time limits are short: a slow store must not stop ingest.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import urllib3
from minio import Minio
from minio.error import InvalidResponseError, S3Error, ServerError
from urllib3.exceptions import MaxRetryError, NameResolutionError, NewConnectionError

from cloud.objects import DigestConflict, ObjectInfo, ObjectMissing, StoreUnavailable
from models.contracts.base import sha256_hex

T = TypeVar("T")
_MISSING = frozenset({"NoSuchKey", "NoSuchObject", "ResourceNotFound"})
_DENIED = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"})
_SINGLE_PUT = 5 << 20
_SHA = "x-amz-meta-sha256"


class BucketMissing(StoreUnavailable):
    """A write makes the bucket; a read tries again later."""


class S3Objects:
    """See `cloud.objects.ObjectStore`. Connects on first use; the bucket is created when it is missing."""

    def __init__(
        self,
        *,
        endpoint: str,
        access_key: str,
        secret_key: str,
        bucket: str,
        secure: bool = False,
        ca: Path | None = None,
        region: str = "us-east-1",
        timeout_s: float = 5.0,
    ) -> None:
        pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=min(timeout_s, 2.0), read=timeout_s),
            retries=urllib3.Retry(total=1, backoff_factor=0.1, redirect=False, raise_on_status=False),
            maxsize=8,
            cert_reqs="CERT_REQUIRED",
            ca_certs=str(ca) if ca else None,
        )
        self._bucket, self._endpoint, self._pool = bucket, endpoint, pool
        self._client = Minio(
            endpoint, access_key=access_key, secret_key=secret_key, secure=secure, region=region, http_client=pool
        )

    def ensure_bucket(self) -> None:
        """Create the bucket unless it is there."""

        def ensure() -> None:
            if not self._client.bucket_exists(self._bucket):
                self._client.make_bucket(self._bucket)

        self._ask(ensure, key=self._bucket)

    def close(self) -> None:
        """Drop the idle connections."""
        self._pool.clear()

    def put_once(self, key: str, data: bytes, *, sha256: str, content_type: str) -> None:
        if sha256_hex(data) != sha256:
            raise ValueError(f"{key!r}: the bytes do not have the digest they are stored under")
        there = self.stat(key)
        if there is not None:
            self._compare(there, data, sha256)
            return
        try:
            self._ask(lambda: self._put(key, data, sha256=sha256, content_type=content_type), key=key)
        except BucketMissing:
            self.ensure_bucket()
            self._ask(lambda: self._put(key, data, sha256=sha256, content_type=content_type), key=key)
        there = self.stat(key)
        if there is None:
            raise StoreUnavailable(f"{self._endpoint} took {key!r} and does not have it; it is tried again")
        self._compare(there, data, sha256)

    def read(self, key: str) -> bytes:
        def get() -> bytes:
            response = self._client.get_object(self._bucket, key)
            try:
                return response.read()
            finally:
                response.close()
                response.release_conn()

        return self._ask(get, key=key)

    def stat(self, key: str) -> ObjectInfo | None:
        try:
            found = self._ask(lambda: self._client.stat_object(self._bucket, key), key=key)
        except ObjectMissing:
            return None
        metadata = found.metadata or {}
        return ObjectInfo(
            key=key,
            size=found.size or 0,
            sha256=metadata.get(_SHA),
            content_type=found.content_type or "application/octet-stream",
        )

    def delete(self, key: str) -> None:
        self._ask(lambda: self._client.remove_object(self._bucket, key), key=key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        found = self._ask(
            lambda: list(self._client.list_objects(self._bucket, prefix=prefix, recursive=True)), key=prefix
        )
        for item in found:
            yield ObjectInfo(key=item.object_name or "", size=item.size or 0, sha256=None, content_type="")

    def _put(self, key: str, data: bytes, *, sha256: str, content_type: str) -> None:
        result = self._client.put_object(
            self._bucket,
            key,
            io.BytesIO(data),
            len(data),
            content_type=content_type,
            metadata={"sha256": sha256},
            part_size=max(_SINGLE_PUT, len(data)),
        )
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if result.etag and len(result.etag) == len(md5) and result.etag != md5 and self.read(key) != data:
            raise DigestConflict(key, "the store kept other bytes than were sent")

    def _compare(self, there: ObjectInfo, data: bytes, sha256: str) -> None:
        if there.size != len(data):
            raise DigestConflict(there.key, f"{there.size} bytes instead of {len(data)}")
        if there.sha256 is None and sha256_hex(self.read(there.key)) != sha256:
            raise DigestConflict(there.key, "its bytes have another digest")
        if there.sha256 not in (None, sha256):
            raise DigestConflict(there.key, f"recorded digest {there.sha256}")

    def _ask(self, call: Callable[[], T], *, key: str) -> T:
        try:
            return call()
        except S3Error as fault:
            if fault.code in _MISSING:
                raise ObjectMissing(key) from fault
            if fault.code == "NoSuchBucket":
                raise BucketMissing(f"bucket {self._bucket!r} is missing on {self._endpoint}") from fault
            if fault.code in _DENIED:
                raise StoreUnavailable(
                    f"{self._endpoint} refuses the credentials ({fault.code}): check objects.access_key and secret_key"
                ) from fault
            raise StoreUnavailable(f"{self._endpoint}: {fault.code}: {fault.message}") from fault
        except (ServerError, InvalidResponseError, urllib3.exceptions.HTTPError, OSError) as fault:
            raise StoreUnavailable(
                f"object store {self._endpoint} cannot be reached ({_reason(fault)}): "
                "check that it runs, and objects.endpoint and objects.secure"
            ) from fault


def _reason(fault: Exception) -> str:
    """What happened, in the words of a person; urllib3 wraps it three times over."""
    inner = fault.reason if isinstance(fault, MaxRetryError) and fault.reason is not None else fault
    match inner:
        case NameResolutionError():
            return "its name cannot be resolved"
        case NewConnectionError():
            cause = inner.__cause__ or inner.__context__
            return (cause.strerror if isinstance(cause, OSError) else None) or "no connection"
        case urllib3.exceptions.TimeoutError():
            return "no answer in time"
        case urllib3.exceptions.SSLError():
            return f"no TLS with it; check objects.ca: {str(inner)[:120]}"
        case InvalidResponseError() | ServerError():
            return f"it does not answer as S3 does: {str(inner).splitlines()[0][:120]}"
    return str(inner)[:120] or type(inner).__name__
