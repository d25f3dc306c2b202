"""Jobs that worker processes can import, and that do what cells do at their worst."""

import os
import signal
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from rtsx.campaign import cell_task
from rtsx.campaign.cells import Address
from rtsx.campaign.records import CommitRecord, Failure
from rtsx.campaign.task_queue import CellResult
from rtsx.cli import main
from rtsx.storage.retry import FailureKind


def failure(cell: Address, kind: FailureKind, attempt: int, run: str) -> Failure:
    """A failure of that kind."""
    return Failure(
        cell=cell,
        kind=kind,
        error="ValueError",
        message="bad data",
        traceback="here",
        attempts=attempt,
        when="",
        run=run,
        worker=str(os.getpid()),
    )


@dataclass(frozen=True)
class Diary:
    """Writes down every call, in a file of its own, so that it outlives the worker."""

    folder: Path
    """Where."""

    def note(self, cell: Address, what: str) -> int:
        """Write a line; returns the how-manieth of its kind it is."""
        number = len(self.read(cell, what)) + 1
        (self.folder / f"{cell[0]}_{cell[1]}.{what}.{number}").write_text(str(os.getpid()))
        return number

    def read(self, cell: Address, what: str) -> list[int]:
        """Processes that wrote such lines."""
        return [int(file.read_text()) for file in sorted(self.folder.glob(f"{cell[0]}_{cell[1]}.{what}.*"))]

    def meet(self, processes: int) -> None:
        """Wait until so many processes have come here; the timeout of the test says that they never do."""
        (self.folder / f"process.{os.getpid()}").touch()
        while len(list(self.folder.glob("process.*"))) < processes:
            time.sleep(0.01)


@dataclass(frozen=True)
class TroubledJob:
    """A job in which some cells have their troubles."""

    diary: Diary
    """Where it writes what it does."""
    kills_once: frozenset[Address] = frozenset()
    """Cells that kill their worker the first time."""
    kills: frozenset[Address] = frozenset()
    """Cells that kill their worker every time."""
    fails_once: frozenset[Address] = frozenset()
    """Cells that fail the first time, in a way that passes."""
    breaks_gpu_once: frozenset[Address] = frozenset()
    """Cells at which CUDA fails the first time."""
    lasting: frozenset[Address] = frozenset()
    """Cells of bad data."""
    halting: frozenset[Address] = frozenset()
    """Cells that find the disk full."""
    leased_once: frozenset[Address] = frozenset()
    """Cells that another run is at, the first time."""
    raises: frozenset[Address] = frozenset()
    """Cells at which the job does what it must not do: raise."""
    waits_for: Path | None = None
    """A file without which no cell is done."""

    def __call__(self, cell: Address, attempt: int, run: str) -> CellResult:
        """Meet the trouble of a cell."""
        number = self.diary.note(cell, "start")
        if cell in self.kills or (cell in self.kills_once and number == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if cell in self.fails_once and number == 1:
            return CellResult(cell=cell, state="failed", failure=failure(cell, "passing", attempt, run))
        if cell in self.breaks_gpu_once and number == 1:
            broken = replace(failure(cell, "passing", attempt, run), message="CUDA error: an illegal memory access")
            return CellResult(cell=cell, state="failed", failure=broken)
        if cell in self.lasting:
            return CellResult(cell=cell, state="failed", failure=failure(cell, "lasting", attempt, run))
        if cell in self.halting:
            return CellResult(cell=cell, state="failed", failure=failure(cell, "halting", attempt, run))
        if cell in self.leased_once and number == 1:
            return CellResult(cell=cell, state="leased", free_after_s=0.05)
        if cell in self.raises:
            raise ZeroDivisionError("a defect")
        while self.waits_for is not None and not self.waits_for.exists():
            time.sleep(0.01)
        self.diary.note(cell, "done")
        return CellResult(cell=cell, state="done")


_INSIDE = threading.Lock()


@dataclass(frozen=True)
class CrowdedJob:
    """Finds out how many cells its process runs at a time."""

    diary: Diary
    """Where it says so."""
    processes: int
    """How many processes run cells before any cell ends, so that one that is quick does not run them all."""

    def __call__(self, cell: Address, attempt: int, run: str) -> CellResult:
        """Hold the process until the others have a cell too."""
        free = _INSIDE.acquire(blocking=False)
        self.diary.note(cell, "free" if free else "crowded")
        self.diary.meet(self.processes)
        if free:
            _INSIDE.release()
        return CellResult(cell=cell, state="done")


def watched() -> None:
    """Run rtsx by its command line, with a line in the file of `RTSX_TEST_DIARY` for each cell that is begun, and that is marked.

    `RTSX_TEST_SIGNAL` ends the process within its first cell, when all of it is written but the mark.
    """
    committed, made = cell_task._Making.committed, cell_task._Making._made
    diary = os.open(os.environ["RTSX_TEST_DIARY"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def noted(making: cell_task._Making) -> bool:
        os.write(diary, f"begun {making._cell}\n".encode())
        is_first = committed(making)
        if is_first:
            os.write(diary, f"marked {making._cell}\n".encode())
        return is_first

    def ended(making: cell_task._Making) -> CommitRecord:
        mark = made(making)
        os.kill(os.getpid(), signal.Signals[os.environ["RTSX_TEST_SIGNAL"]])
        return mark

    cell_task._Making.committed = noted  # type: ignore[method-assign]
    if "RTSX_TEST_SIGNAL" in os.environ:
        cell_task._Making._made = ended  # type: ignore[method-assign]
    main()


class UnreadableJob:
    """A job of a library that workers do not have."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Import what is not there."""
        return __import__, ("a_library_that_is_not_there",)

    def __call__(self, cell: Address, attempt: int, run: str) -> CellResult:
        """Never reached."""
        raise AssertionError
