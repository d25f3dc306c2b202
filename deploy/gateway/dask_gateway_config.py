"""Configuration of a dask-gateway on one machine, with workers that can run rtsx. The tests start exactly this file.

    pip install "rtsx[gateway,s3]" "dask-gateway-server[local]"
    RTSX_GATEWAY_PASSWORD=... dask-gateway-server -f deploy/gateway/dask_gateway_config.py

and then, with DASK_GATEWAY_PASSWORD set to the same,

    rtsx campaign run campaign.yaml --gateway http://127.0.0.1:8000 --profile cpu --adapt 0 4

Clusters run with the rights of whoever starts the gateway, so it is for one user, or for users who trust each other. On
Kubernetes the chart of dask-gateway with deploy/helm/values.yaml takes its place.
"""

import os
import sys
from pathlib import Path

from dask_gateway_server.options import Float, Integer, Mapping, Options, Select

c = get_config()  # noqa: F821 - given by the gateway

# Only this machine. To be reached from others: RTSX_GATEWAY_ADDRESS=0.0.0.0:8000, with a certificate and its key.
c.Proxy.address = os.environ.get("RTSX_GATEWAY_ADDRESS", "127.0.0.1:8000")
c.Proxy.tcp_address = os.environ.get("RTSX_GATEWAY_TCP_ADDRESS", c.Proxy.address)
c.Proxy.tls_cert = os.environ.get("RTSX_GATEWAY_TLS_CERT", "")
c.Proxy.tls_key = os.environ.get("RTSX_GATEWAY_TLS_KEY", "")
if not (c.Proxy.tls_cert or c.Proxy.address.startswith(("127.", "localhost:", "[::1]:"))):
    sys.exit(
        f"{c.Proxy.address} is reached from other machines, and the password would cross the network unencrypted. Name a "
        "certificate and its key by RTSX_GATEWAY_TLS_CERT and RTSX_GATEWAY_TLS_KEY."
    )
c.DaskGateway.address = os.environ.get("RTSX_GATEWAY_API_ADDRESS", "127.0.0.1:0")  # of the processes among themselves

c.DaskGateway.authenticator_class = "dask_gateway_server.auth.SimpleAuthenticator"
c.SimpleAuthenticator.password = os.environ["RTSX_GATEWAY_PASSWORD"]

c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
# All else is taken from the environment of schedulers and workers, so credentials of object stores are named here.
c.UnsafeLocalBackend.inherited_environment = [
    *("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV", "TMPDIR", "SSL_CERT_FILE", "CUDA_VISIBLE_DEVICES"),
    *(
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
    ),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
]

# distributed has no scripts dask-scheduler and dask-worker any more, which the gateway would call.
DASK = str(Path(sys.executable).with_name("dask"))
c.LocalClusterConfig.scheduler_cmd = [DASK, "scheduler"]
c.LocalClusterConfig.adaptive_period = 1  # seconds between two looks at what is waiting
c.LocalClusterConfig.idle_timeout = 1800  # a cluster whose client is gone ends after so many seconds without work

CORES = len(os.sched_getaffinity(0))
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
PROFILES = {
    "cpu": {"cores": 1, "memory": MEMORY / CORES, "most_workers": CORES, "worker_cmd": [DASK, "worker"]},
    # The mark by which a campaign knows GPU workers. One of them, because workers of one machine would share its first GPU.
    "gpu": {
        "cores": CORES,
        "memory": MEMORY,
        "most_workers": 1,
        "worker_cmd": [DASK, "worker", "--resources", "GPU=1"],
    },
}


def cluster_of(options):
    """Configuration of a cluster that a user asked for by these options."""
    profile = PROFILES[options.profile]
    cores = options.worker_cores or profile["cores"]
    # A network runs on all cores of a worker; without these distributed gives it a single one.
    threads = {name: str(cores) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    # A lost worker is told at once, instead of after three silent attempts, because a campaign has its own attempts.
    failures = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    # Memory that a pass of the network frees is kept for the next one, and a worker is not paused for holding it.
    memory = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
    memory |= {f"DASK_DISTRIBUTED__WORKER__MEMORY__{name}": "False" for name in ("TARGET", "SPILL", "PAUSE")}
    return {
        "worker_cmd": profile["worker_cmd"],
        "worker_cores": cores,
        "worker_threads": 1,  # one cell at a time: it reads ahead in threads of its own, and a second would double the memory
        "worker_memory": int((options.worker_memory or profile["memory"]) * 2**30),
        "cluster_max_workers": profile["most_workers"],
        "environment": {**threads, **failures, **memory, **options.environment},
    }


c.Backend.cluster_options = Options(
    Select("profile", list(PROFILES), default="cpu", label="Profile"),
    Integer("worker_cores", default=0, min=0, max=CORES, label="Cores of a worker (0: the profile's)"),
    Float("worker_memory", default=0, min=0, max=MEMORY, label="Memory of a worker, GiB (0: the profile's)"),
    Mapping("environment", default={}, label="Environment of scheduler and workers"),
    handler=cluster_of,
)
