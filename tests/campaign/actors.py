"""Processes that the fault run kills: a scheduler, workers that come back by themselves, and the command that runs a campaign."""

import random
import threading
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests import warm
from tests.servers import free_port


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
        self._environment = environment
        self._actors: list[BaseProcess] = [self._start(number) for number in range(workers + 1)]
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
            actor.join()

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, number: int) -> BaseProcess:
        common = ["--no-dashboard", "--host", "127.0.0.1"]
        port = self.address.rsplit(":", 1)[-1]
        local = ["--local-directory", str(self._folder / f"worker-{number}"), "--death-timeout", "60"]
        command = (
            ["dask", "scheduler", *common, "--port", port]
            if number == 0
            else ["dask", "worker", self.address, *common, *local, "--no-nanny", "--nthreads", "2"]
        )
        log = self._folder / f"actor-{number}.log"
        return warm.start("dask.cli:run_cli", command, log=log, environment=self._environment)

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            for number, actor in enumerate(self._actors):
                if not actor.is_alive() and not self._ended.is_set():
                    self._actors[number] = self._start(number)


class Operator:
    """Whoever runs `rtsx campaign run`, and kills it, and runs it again."""

    def __init__(self, config: Path, *, scheduler: str, folder: Path, environment: dict[str, str]) -> None:
        self._command = ["rtsx", "campaign", "run", str(config), "--scheduler", scheduler]
        self._log = folder / "operator.log"
        self._environment = environment
        self._process: BaseProcess | None = None

    def run(self) -> None:
        """Start the command."""
        self._process = warm.start("rtsx.cli:main", self._command, log=self._log, environment=self._environment)

    def status(self) -> int | None:
        """Exit status of the command; None while it runs."""
        assert self._process is not None
        return self._process.exitcode

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.join()

    def said(self) -> str:
        """Everything that the commands have said."""
        return self._log.read_text()
