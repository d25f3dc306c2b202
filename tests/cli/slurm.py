"""Slurm on this machine: a controller and one node, in processes of a test, with a key of their own."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.servers import free_port

_CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000
PartitionName=all Nodes=ALL Default=YES
"""


@contextmanager
def slurm(folder: Path) -> Iterator[Path]:
    """Serve a partition `all` of a node of two processors; gives the file that `SLURM_CONF` names, or skips the test."""
    if lacking := [name for name in ("slurmctld", "slurmd", "munged", "mungekey") if shutil.which(name) is None]:
        pytest.skip(f"{' and '.join(lacking)} not found: apt-get install slurmctld slurmd slurm-client munge")
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons are started as root here")
    config = folder / "slurm.conf"
    ports = {"controller": free_port(), "daemon": free_port()}
    config.write_text(_CONFIG.format(host=socket.gethostname().partition(".")[0], folder=folder, **ports))
    environment = {**os.environ, "SLURM_CONF": str(config)}
    subprocess.run(["mungekey", "--create", f"--keyfile={folder}/munge.key"], check=True)
    files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munged = [
        "munged",
        "--foreground",
        "--force",
        *(f"--{name}={folder}/munge.{ending}" for name, ending in files.items()),
    ]
    with ExitStack() as daemons:
        for command in (munged, ["slurmctld", "-D"], ["slurmd", "-D"]):
            log = daemons.enter_context((folder / f"{command[0]}.out").open("w"))
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            daemons.callback(process.wait)
            daemons.callback(process.terminate)
            if command is munged:
                _wait(lambda: (folder / "munge.socket").exists(), folder)
        state = ["sinfo", "--noheader", "--format=%t"]
        _wait(lambda: subprocess.run(state, env=environment, capture_output=True, text=True).stdout == "idle\n", folder)
        yield config


def finish_jobs(folder: Path, *, is_done: Callable[[], bool]) -> set[str]:
    """Wait until the work is done and no job is left; returns those that were queued again, which start in seconds instead of after two minutes.

    An empty queue alone says too little where Slurm has given a job up.
    """
    again: set[str] = set()

    def is_empty() -> bool:
        listed = subprocess.run(["squeue", "--noheader", "--array", "--format=%i %r"], capture_output=True, text=True)
        for job, _, reason in (line.partition(" ") for line in listed.stdout.splitlines()):
            if reason == "BeginTime" and job not in again:
                again.add(job)
                # Not now: a node that takes it in the second in which it ended there revokes the new one, too.
                subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now+3seconds"], check=True)
        return listed.returncode == 0 and not listed.stdout and is_done()

    _wait(is_empty, folder)
    return again


def _wait(is_so: Callable[[], bool], folder: Path, *, limit_s: float = 120) -> None:
    deadline = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > deadline:
            said = "\n".join(f"{path.name}:\n{path.read_text()[-1000:]}" for path in sorted(folder.glob("*.out")))
            raise RuntimeError(f"Slurm took too long:\n{said}")
        threading.Event().wait(0.05)
