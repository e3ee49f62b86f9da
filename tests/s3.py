"""A server of this machine that speaks S3, for the tests of object stores.

It is moto's, in an environment of its own (.ci/s3-server.txt): botocore wants an older dateutil.
"""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from tests.pipeline.processes import ROOT, S3_KEY
from tests.pipeline.ray_head import free_ports

# Not any moto_server of the PATH: some versions answer what pyarrow does not take.
SERVER = Path(os.environ.get("ZPD_MOTO_SERVER", ROOT / ".venv/s3/bin/moto_server"))


@dataclass(frozen=True)
class Bucket:
    """A bucket on a server of this machine."""

    address: str

    def uri(self, name: str) -> str:
        """As a user gives it, with what leads to the server."""
        return f"s3://bucket/{name}?endpoint_override={self.address}&scheme=http&region=us-east-1"

    def contents(self, name: str) -> dict[str, bytes]:
        """All files below ``name``."""
        fs, base = pafs.FileSystem.from_uri(self.uri(name))
        found = fs.get_file_info(pafs.FileSelector(base, recursive=True))
        return {info.path: fs.open_input_stream(info.path).read() for info in found if info.is_file}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    if not SERVER.exists():
        pytest.skip(f"needs {SERVER}: see .ci/s3-server.txt")
    (port,) = free_ports(1)
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("wb") as out:
        arguments = [str(SERVER), "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(arguments, stdout=out, stderr=subprocess.STDOUT)
    make_bucket = urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT")
    deadline = time.monotonic() + 60
    while True:
        with suppress(OSError), urllib.request.urlopen(make_bucket, timeout=10):
            break
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    yield Bucket(f"127.0.0.1:{port}")
    process.kill()
    process.wait()


@pytest.fixture
def bucket(server: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """With credentials where they belong: in the environment, also of what the test starts."""
    for name, value in S3_KEY.items():  # the tests' Ray has them, too
        monkeypatch.setenv(name, value)
    return server
