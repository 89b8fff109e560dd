"""A real S3 server (SeaweedFS, which the `dev` extra installs) on free ports of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ports import free_ports

BUCKET = "capo"
_START_SECONDS = 60


def find_server() -> str | None:
    """Return the path of SeaweedFS' program, or None."""
    return shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


@contextmanager
def serve_objects(folder: Path) -> Iterator[dict[str, str]]:
    """Serve a bucket named BUCKET out of a folder; yields the environment with which a client reaches it."""
    program = find_server()
    assert program is not None
    folder.mkdir(parents=True)
    names = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    environment = {
        "AWS_ACCESS_KEY_ID": "capo-test",
        "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3.port']}",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    command = [
        program, "-logtostderr=true", "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0",
        "-volume.max=30", "-master.volumeSizeLimitMB=64", "-volume.minFreeSpace=0",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=os.environ | environment)
        try:
            _make_bucket(environment, server)
            yield environment
        finally:
            server.kill()
            server.wait()


def _make_bucket(environment: dict[str, str], server: subprocess.Popen[bytes]) -> None:
    """Create the bucket once the server, whose parts come up one after the other, takes an object in it."""
    from s3fs import S3FileSystem

    fs = S3FileSystem(
        key=environment["AWS_ACCESS_KEY_ID"],
        secret=environment["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        skip_instance_cache=True,
    )
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            fs.mkdir(BUCKET)
            fs.pipe_file(f"{BUCKET}/started", b"")
            return
        except Exception:
            if time.monotonic() > deadline or server.poll() is not None:
                raise
            time.sleep(0.25)
