"""Processor seconds that commands need before they answer: each in a process of its own, beside one that only imports typer.

Processor time, because on a shared machine it says what the clock does not. The first round, which reads libraries from disk,
does not count.
"""

import os
import resource
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

_CAMPAIGN = Path(__file__).parents[1] / "configs" / "campaign-demo.yaml"
_TYPER = "import typer"
COMMANDS = (
    "predict --help",
    "info",
    "cube info missing.yaml",
    "predict missing.tif --model demo --out map.zarr",
    "train missing.yaml --out run",
    "campaign status missing.yaml",
    f"campaign status {_CAMPAIGN}",
    f"campaign fetch {_CAMPAIGN} --to store",
)


def busy_s(words: list[str], *, folder: Path, environment: Mapping[str, str]) -> float:
    """Seconds of processor time that python takes with these words, whatever its exit code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def run(*, rounds: int, commands: tuple[str, ...] = COMMANDS) -> dict[str, float]:
    """Run every command, round by round, and print the median of its seconds; s by command.

    The campaign is that of `configs/campaign-demo.yaml`, planned over a synthetic region.
    """
    script = "import sys; from rtsx.cli import main; main(sys.argv[1:])"
    spent = defaultdict(list)
    with TemporaryDirectory() as name:
        folder = Path(name)
        environment = os.environ | {
            "RTSX_CATALOG": str(folder / "region" / "catalog.json"),
            "RTSX_MAPS": str(folder / "maps"),
        }
        if any(str(_CAMPAIGN) in command for command in commands):
            for command in (
                "synthetic region --seed 11 --scenes 1 --years 2024 --out region",
                f"campaign plan {_CAMPAIGN}",
            ):
                subprocess.run(
                    [sys.executable, "-c", script, *command.split()],
                    cwd=folder, env=environment, capture_output=True, check=True,
                )  # fmt: skip
        for _ in range(1 + rounds):
            spent[_TYPER].append(busy_s(["-c", _TYPER], folder=folder, environment=environment))
            for command in commands:
                words = ["-c", script, *command.split()]
                spent[f"rtsx {command}"].append(busy_s(words, folder=folder, environment=environment))
    found = {command: statistics.median(seconds[1:]) for command, seconds in spent.items()}
    print(f"{'busy s':>8}  command")
    for command, seconds in found.items():
        print(f"{seconds:>8.2f}  {command.replace(str(_CAMPAIGN), 'campaign-demo.yaml')}")
    return found
