"""Processes that the fault run kills: a scheduler, workers that come back by themselves, and the command that runs a campaign."""

import os
import random
import signal
import subprocess
import threading
from pathlib import Path

from tests.servers import free_port, script_of


class Cluster:
    """A scheduler and workers on loopback. Whatever of them ends is started again, as an operator's machines would.

    Parameters
    ----------
    workers
        How many.
    folder
        For what they write to disk, and their logs.
    environment
        Further variables of their environment.
    """

    def __init__(self, *, workers: int, folder: Path, environment: dict[str, str]) -> None:
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self._folder = folder
        self._environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
        self._actors: list[subprocess.Popen[bytes]] = [self._start(number) for number in range(workers + 1)]
        self._ended = threading.Event()
        self._guard = threading.Thread(target=self._watch, daemon=True)
        self._guard.start()
        self._random = random.Random(7)

    def kill_worker(self) -> None:
        """SIGKILL to one of the workers, drawn at random."""
        self._random.choice(self._actors[1:]).kill()

    def kill_scheduler(self) -> None:
        """SIGKILL to the scheduler."""
        self._actors[0].kill()

    def close(self) -> None:
        """End all of it."""
        self._ended.set()
        self._guard.join()
        for actor in self._actors:
            actor.kill()
            actor.wait()

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, number: int) -> "subprocess.Popen[bytes]":
        dask = script_of("dask")
        common = ["--no-dashboard", "--host", "127.0.0.1"]
        port = self.address.rsplit(":", 1)[-1]
        local = ["--local-directory", str(self._folder / f"worker-{number}"), "--death-timeout", "60"]
        command = (
            [dask, "scheduler", *common, "--port", port]
            if number == 0
            else [dask, "worker", self.address, *common, *local, "--no-nanny", "--nthreads", "2"]
        )
        with (self._folder / f"actor-{number}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=self._environment)

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            for number, actor in enumerate(self._actors):
                if actor.poll() is not None and not self._ended.is_set():
                    self._actors[number] = self._start(number)


class Operator:
    """Whoever runs `rtsx campaign run`, and kills it, and runs it again."""

    def __init__(self, config: Path, *, scheduler: str, folder: Path, environment: dict[str, str]) -> None:
        self._command = [script_of("rtsx"), "campaign", "run", str(config), "--scheduler", scheduler]
        self._log = folder / "operator.log"
        self._environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Start the command."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)

    def status(self) -> int | None:
        """Exit status of the command; None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def said(self) -> str:
        """Everything that the commands have said."""
        return self._log.read_text()
