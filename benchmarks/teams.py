"""What a forward pass takes beside threads that have called torch once and sit idle since: why rtsx keeps one torch thread.

In a process of its own, because every thread of this one that has called torch would count.
"""

import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import torch

from benchmarks.scene import make_unet

_LARGE = (1024, 1024)
"""A tensor that torch adds up with all of its threads."""


def run(
    sides: tuple[int, ...], *, others: tuple[int, ...] = (0, 1, 2), rounds: int = 5, passes: int = 10
) -> dict[tuple[int, int], float]:
    """Measure and print: median milliseconds of a pass of Unet/resnet18, by side of the tile and number of idle threads."""
    words = [",".join(map(str, numbers)) for numbers in (sides, others, (rounds, passes))]
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.teams", *words], check=True, stdout=subprocess.PIPE, text=True
    )
    print(told.stdout, end="")
    rows = [line.split() for line in told.stdout.splitlines()[2:]]
    return {(int(side), int(number)): float(milliseconds) for side, number, milliseconds, _ in rows}


def _measure(sides: tuple[int, ...], others: tuple[int, ...], *, rounds: int, passes: int) -> None:
    with ThreadPoolExecutor(1) as own:  # the one that runs the network
        network = own.submit(_network).result()
        print(
            f"Unet/resnet18, 10 layers, {torch.get_num_threads()} threads\n{'tile px':>8}{'others':>8}{'ms':>9}{'ratio':>7}"
        )
        for side in sides:
            batch = own.submit(_batch, side).result()
            taken: dict[int, list[float]] = {number: [] for number in others}
            for _ in range(rounds):
                for number in others:  # in turn, so that noise meets all alike
                    with _Idle(number):
                        taken[number].append(own.submit(_pass_s, network, batch, passes).result())
            for number, seconds in taken.items():
                ratio = statistics.median(one / first for one, first in zip(seconds, taken[others[0]], strict=True))
                print(f"{side:8}{number:8}{1000 * statistics.median(seconds):9.1f}{ratio:7.2f}", flush=True)


class _Idle:
    """Some threads, each of which has called torch once."""

    def __init__(self, number: int) -> None:
        self._end = threading.Event()
        self._ready = threading.Barrier(number + 1)
        self._threads = [threading.Thread(target=self._sit) for _ in range(number)]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()
        self._ready.wait()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _sit(self) -> None:
        torch.ones(_LARGE).add_(1)
        self._ready.wait()
        self._end.wait()


def _network() -> torch.nn.Module:
    return make_unet().eval().to(memory_format=torch.channels_last)


def _batch(side: int) -> torch.Tensor:
    return torch.rand(1, 10, side, side).contiguous(memory_format=torch.channels_last)


def _pass_s(network: torch.nn.Module, batch: torch.Tensor, passes: int) -> float:
    with torch.inference_mode():
        network(batch)
        begin = time.perf_counter()
        for _ in range(passes):
            network(batch)
        return (time.perf_counter() - begin) / passes


if __name__ == "__main__":
    by_side, by_number, (times, repeats) = (tuple(map(int, word.split(","))) for word in sys.argv[1:])
    _measure(by_side, by_number, rounds=times, passes=repeats)
