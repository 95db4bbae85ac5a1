"""The verifying half: what a box needs to take a release it can trust, and nothing that signs."""

from ota.client.blobs import BlobStore
from ota.client.contents import Release
from ota.client.limits import Limits
from ota.client.release import ReleaseClient

__all__ = ["BlobStore", "Limits", "Release", "ReleaseClient"]
