"""Reading a sample's image: from the object store, and from the landing copy if the store has lost or damaged it."""

from __future__ import annotations

from cloud.ingest.staging import Landing
from cloud.objects import ObjectMissing, ObjectStore, StoreUnavailable, sample_key
from models.contracts.base import sha256_hex


class SampleImages:
    """See the module."""

    def __init__(self, *, objects: ObjectStore, landing: Landing | None) -> None:
        self._objects, self._landing = objects, landing

    def read(self, sha256: str) -> bytes:
        """The verified bytes.

        Raises:
            ObjectMissing: neither place has them whole.
            StoreUnavailable: the store cannot be asked and no landing copy is left.
        """
        away: StoreUnavailable | None = None
        try:
            data = self._objects.read(sample_key(sha256))
            if sha256_hex(data) == sha256:
                return data
        except ObjectMissing:
            pass
        except StoreUnavailable as fault:
            away = fault
        copy = self._landing.read(sha256) if self._landing is not None else None
        if copy is not None:
            return copy
        raise away or ObjectMissing(sample_key(sha256))
