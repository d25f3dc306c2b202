"""A real dask-gateway with its proxy, from the configuration that is shipped."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers import free_port, wait_until_answers

CONFIG = Path(__file__).parents[2] / "deploy" / "gateway" / "dask_gateway_config.py"


@dataclass(frozen=True)
class GatewayServer:
    """A gateway on loopback."""

    url: str
    """Address."""
    password: str
    """Of everybody."""
    process: "subprocess.Popen[bytes]"
    """The server."""


@contextmanager
def gateway_server() -> Iterator[GatewayServer]:
    """Start the gateway; its clusters end with it."""
    pytest.importorskip("dask_gateway_server")
    pytest.importorskip("dask_gateway")
    address, password = f"127.0.0.1:{free_port()}", "swordfish"
    environment = os.environ | {
        "RTSX_GATEWAY_ADDRESS": address,
        "RTSX_GATEWAY_PASSWORD": password,
        "PYTHONPATH": str(Path(__file__).parents[2]),  # so that workers find the jobs of the tests
    }
    server = str(Path(sys.executable).with_name("dask-gateway-server"))
    # A session of its own, because its proxy, and the schedulers and workers of its clusters, are to end with it.
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [server, "-f", str(CONFIG)],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            wait_until_answers(f"http://{address}/api/health", process)
            yield GatewayServer(f"http://{address}", password, process)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
