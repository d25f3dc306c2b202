"""Processes that the fault run kills: a scheduler, workers that come back by themselves, and the command that runs a campaign."""

import os
import random
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

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


How = Literal["SIGKILL", "SIGTERM", "wall time", "none"]
"""What ends a worker before the campaign is complete."""
STATUSES: Mapping[How, frozenset[int]] = {
    "SIGKILL": frozenset({0, -signal.SIGKILL}),
    "SIGTERM": frozenset({0, 128 + signal.SIGTERM}),
    "wall time": frozenset({0, 75, 2}),  # 2 where the time was too short for a first cell
    "none": frozenset({0}),
}
"""Exit statuses that are right; 0 where the campaign was complete before."""
_ENDS_S = (0.5, 5.0)
"""Between which a worker is ended."""


@dataclass
class _Member:
    number: int
    ends: list[How]
    how: How = "none"
    due: float = 0.0
    process: BaseProcess | None = None
    statuses: list[tuple[How, int]] = field(default_factory=list)

    @property
    def log(self) -> str:
        return f"worker-{self.number}-{len(self.statuses)}.log"


class Crew:
    """Workers without a scheduler, each of which is ended some times and started again, as by a batch system.

    Parameters
    ----------
    config
        File of the campaign.
    ends
        How each of them is ended, one after the other, if it is not done before.
    folder
        For their logs, and their diary.
    seed
        Of chance, by which they are ended; None ends each by a signal within its first cell, when all of it is written but the mark.
    """

    def __init__(self, config: Path, *, ends: Sequence[Sequence[How]], folder: Path, seed: int | None) -> None:
        self._random = random.Random(seed)
        self._is_within = seed is None
        self._config = config
        self._folder = folder
        self._members = [_Member(number, list(ways)) for number, ways in enumerate(ends)]

    @classmethod
    def at_random(cls, config: Path, *, workers: int, ends: int, folder: Path, seed: int) -> "Crew":
        """So many workers, each of which is ended so often, somehow."""
        ways: list[How] = ["SIGKILL", "SIGTERM", "wall time"]
        drawn = random.Random(seed)
        return cls(config, ends=[drawn.choices(ways, k=ends) for _ in range(workers)], folder=folder, seed=seed)

    def run(self, *, limit_s: float) -> list[tuple[How, int]]:
        """Run until each has ended with status 0; returns how each process was ended, and its status."""
        begin = time.monotonic()
        for member in self._members:
            self._start(member)
        while running := [member for member in self._members if member.process is not None]:
            assert time.monotonic() - begin < limit_s, "it took too long"
            for member in running:
                self._look(member)
            time.sleep(0.02)
        return [one for member in self._members for one in member.statuses]

    @property
    def diary(self) -> list[tuple[str, str]]:
        """What was done with which cell, in order."""
        lines = (self._folder / "diary").read_text().splitlines()
        return [(what, cell) for what, _, cell in (line.partition(" ") for line in lines)]

    def said(self) -> str:
        """What the processes that ended with a wrong status have said."""
        wrong = [
            self._folder / f"worker-{member.number}-{turn}.log"
            for member in self._members
            for turn, (how, status) in enumerate(member.statuses)
            if status not in STATUSES[how]
        ]
        return "\n".join(f"{path.name}:\n{path.read_text()[-2000:]}" for path in wrong)

    def _start(self, member: _Member) -> None:
        member.how = member.ends.pop() if member.ends else "none"
        span = self._random.uniform(*_ENDS_S)
        member.due = time.monotonic() + span
        command = ["rtsx", "campaign", "work", str(self._config)]
        if member.how == "wall time":
            command += ["--until", (datetime.now(UTC) + timedelta(seconds=span)).isoformat(timespec="seconds")]
        environment = {"RTSX_TEST_DIARY": str(self._folder / "diary"), "OMP_NUM_THREADS": "1"}
        if self._is_within and member.how in ("SIGKILL", "SIGTERM"):
            environment["RTSX_TEST_SIGNAL"] = member.how
        log = self._folder / member.log
        member.process = warm.start("tests.campaign.flights:watched", command, log=log, environment=environment)

    def _look(self, member: _Member) -> None:
        process = member.process
        assert process is not None
        if process.exitcode is not None:
            member.statuses.append((member.how, process.exitcode))
            member.process = None
            if process.exitcode and (member.ends or member.how != "none"):
                self._start(member)
        elif not self._is_within and member.how in ("SIGKILL", "SIGTERM") and time.monotonic() > member.due:
            os.kill(process.pid or 0, signal.Signals[member.how])
            member.due = float("inf")


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
