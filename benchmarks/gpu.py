"""Everything that a GPU has to show, in one command and a given time: `python -m benchmarks gpu --minutes 8 --out DIR`.

First what is claimed (`tests/gpu`), then the network alone, then all of rtsx from memory and from Zarr to Zarr. A step that fails, or that the time
does not suffice for, is written down as such, and the next begins. On a CPU it is a dry run on little pictures.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from torch.profiler import ProfilerActivity, profile

import rtsx
from benchmarks.scene import LAYERS, make_bundle, make_cube
from rtsx.inference.device import Hardware
from rtsx.model import build_network
from rtsx.model.metadata import Reach
from rtsx.model.network import resolve_device, run_in_torch_thread

NETWORKS = (("Unet", "resnet34", 1), ("UnetPlusPlus", "efficientnet-b5", 3))
"""Architecture, encoder and members: an ordinary one, and the ensemble of a pan-Arctic run."""
TILE, OVERLAP = 512, 168 // 32 * 32
"""Of that run, whose overlap of 168 px is no multiple of the networks' stride."""
TESTS = Path(__file__).parents[1] / "tests" / "gpu"


@dataclass
class Report:
    """Rows of the table, written anew after each, so that what has been found survives whatever comes."""

    out: Path
    head: str
    """What it is about."""
    until: float
    """When the time is over, by `time.monotonic`."""
    rows: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """Time a step and keep what it finds, or why it failed."""
        row: dict[str, Any] = {"step": name, "result": ""}
        begun = time.monotonic()
        try:
            yield row
        except Exception as error:
            with (self.out / "errors.txt").open("a") as errors:
                errors.write(f"{name}\n{traceback.format_exc()}\n")
            row["result"] = f"failed: {type(error).__name__}: {str(error)[:200]}"
        row["seconds"] = round(time.monotonic() - begun, 2)
        self.rows.append(row)
        (self.out / "rows.json").write_text(json.dumps(self.rows, indent=1))
        rows = (f"| {row['step']} | {row['result']} | {row['seconds']} |" for row in self.rows)
        self.table.write_text("\n".join([self.head, "", "| step | result | s |", "|---|---|---|", *rows]) + "\n")
        print(f"{row['step']} | {row['result']} | {row['seconds']}", flush=True)

    @property
    def table(self) -> Path:
        """Where the table is."""
        return self.out / "gpu.md"

    def has_time(self) -> bool:
        """Whether another step may begin."""
        return time.monotonic() < self.until


def run(out: Path, *, minutes: float, size: int, networks: tuple[tuple[str, str, int], ...] = NETWORKS) -> Path:
    """Do all steps; returns the table, a Markdown file in `out`.

    Parameters
    ----------
    out
        Folder for the table, the rows as JSON, a trace for `chrome://tracing` and the errors.
    minutes
        After which no step begins any more.
    size
        Side of the scene, px.
    networks
        Architecture, encoder and number of members of each.
    """
    out.mkdir(parents=True, exist_ok=True)
    device = resolve_device("auto")
    report = Report(out, _head(device, size=size), time.monotonic() + 60 * minutes)
    tile, overlap = (TILE, OVERLAP) if device.type == "cuda" else (64, 32)
    steps: list[tuple[str, Callable[[dict[str, Any]], None]]] = [("tests/gpu", partial(_tests, report=report))]
    compiled: list[tuple[str, Callable[[dict[str, Any]], None]]] = []
    with tempfile.TemporaryDirectory() as folder:
        cube = make_cube(size)
        for architecture, encoder, members in networks:
            name = f"{architecture}/{encoder} x {members}"
            bundles = _Bundles(architecture, encoder, members)
            steps += [
                (
                    f"{name}, network alone, {precision}",
                    partial(_bare, bundles=bundles, device=device, tile=tile, precision=precision),
                )
                for precision in ("float32", "bfloat16")
            ]
            options = {"tile": tile, "overlap": overlap, "trim": 0, "device": str(device), "backend": "eager"}
            steps += [
                (f"{name}, from memory", partial(_whole, bundles=bundles, cube=cube, options=options, folder=None)),
                (
                    f"{name}, Zarr to Zarr",
                    partial(_whole, bundles=bundles, cube=cube, options=options, folder=Path(folder)),
                ),
            ]
            if device.type == "cuda":
                compiled.append(
                    (
                        f"{name}, compiled",
                        partial(
                            _whole, bundles=bundles, cube=cube, options={**options, "backend": "compile"}, folder=None
                        ),
                    )
                )
        steps.append(("trace", partial(_trace, bundles=_Bundles(*networks[0]), cube=cube, out=out)))
        for name, work in steps + compiled:  # which nothing can stop, so they come last
            with report.step(name) as row:
                if report.has_time():
                    work(row)
                else:
                    row["result"] = "no time left"
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
    print(report.table.read_text())
    return report.table


@dataclass
class _Bundles:
    """The members of an ensemble, made when first needed, with random weights."""

    architecture: str
    encoder: str
    members: int
    _made: list[rtsx.ModelBundle] = field(default_factory=list)

    def __call__(self) -> list[rtsx.ModelBundle]:
        while len(self._made) < self.members:
            torch.manual_seed(len(self._made))
            named = {"encoder_name": self.encoder, "in_channels": len(LAYERS), "classes": 1}
            module = run_in_torch_thread(lambda named=named: build_network(self.architecture, named).eval())
            self._made.append(make_bundle(module).with_reach(Reach(stride=32, radius=64, depends_on_tile=False)))
        return self._made


def _tests(row: dict[str, Any], *, report: Report) -> None:
    """In a process of its own, which may lose its GPU."""
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", str(TESTS)]
    left = max(1.0, (report.until - time.monotonic()) / 3)  # the rest is for what is measured
    said = report.out / "tests.txt"
    # Else Triton's kernels are compiled one by one, as in the rest of the tests, of which several run at once.
    environment = os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": str(os.cpu_count())}
    with said.open("w") as file:
        try:
            subprocess.run(
                command, stdout=file, stderr=file, timeout=left, check=False, cwd=TESTS.parents[1], env=environment
            )
            ended = ""
        except subprocess.TimeoutExpired:
            ended = f"stopped after {left:.0f} s: "
    row["result"] = ended + (said.read_text().strip().splitlines() or ["nothing"])[-1].strip("= ")


def _bare(row: dict[str, Any], *, bundles: _Bundles, device: torch.device, tile: int, precision: str) -> None:
    """Megapixels a second that the members see, batch by batch."""
    networks = [each.network(device=str(device), precision=precision, backend="eager") for each in bundles()]
    found = []
    for batch_size in (1, 4, 16) if device.type == "cuda" else (1,):

        def work(batch_size: int = batch_size) -> float:
            batch = torch.rand(batch_size, len(LAYERS), tile, tile, device=device)
            with torch.inference_mode():
                passes, begun = -1, 0.0
                while passes < 3 or (device.type == "cuda" and time.perf_counter() - begun < 2):
                    if passes == 0:
                        _wait(device)
                        begun = time.perf_counter()
                    for network in networks:
                        network(batch)
                    passes += 1
                _wait(device)
            return passes * batch_size * tile**2 / 1e6 / (time.perf_counter() - begun)

        found.append(f"{run_in_torch_thread(work, device):.1f} at {batch_size}")
    row["result"] = f"Mpx/s of tiles, by batch: {', '.join(found)}"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _whole(
    row: dict[str, Any], *, bundles: _Bundles, cube: xr.Dataset, options: dict[str, Any], folder: Path | None
) -> None:
    """Megapixels of the map a second, reading and writing included where there is a folder."""
    if folder is None:
        source = cube.load()
    else:
        if not (folder / "cube.zarr").exists():
            rtsx.write_cube(cube, folder / "cube.zarr", overviews=False)
        source = rtsx.open_cube(folder / "cube.zarr")
    small = source.isel(y=slice(0, 2 * options["tile"]), x=slice(0, 2 * options["tile"]))
    rtsx.predict_cube(small, bundles(), **options).compute()  # opens and compiles
    begun, busy = time.perf_counter(), time.process_time()
    pred = rtsx.predict_cube(source, bundles(), **options)
    if folder is not None:
        rtsx.write_cube(pred, folder / "map.zarr", overviews=False, overwrite=True)
    seconds, busy = time.perf_counter() - begun, time.process_time() - busy
    megapixels = cube.sizes["y"] * cube.sizes["x"] / 1e6
    tiles = len(
        rtsx.TilePlan(
            shape=(cube.sizes["y"], cube.sizes["x"]), stride=32, **{n: options[n] for n in ("tile", "overlap", "trim")}
        )
    )
    row["result"] = (
        f"{megapixels / seconds:.2f} Mpx/s of map, {tiles / seconds:.1f} tiles/s, processors {1e3 * busy / megapixels:.0f} ms/Mpx"
    )


def _trace(row: dict[str, Any], *, bundles: _Bundles, cube: xr.Dataset, out: Path) -> None:
    """What runs when, of a small part."""
    side = min(2048, cube.sizes["y"])
    part = cube.isel(y=slice(0, side), x=slice(0, side))
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=kinds) as profiled:
        rtsx.predict_cube(part, bundles(), tile=64 if len(kinds) == 1 else TILE, overlap=32, backend="eager").compute()
    profiled.export_chrome_trace(str(out / "trace.json"))
    waits = sum(each.count for each in profiled.key_averages() if each.key == "cudaStreamSynchronize")
    row["result"] = f"trace.json; the host waited for the device {waits} times"


def _head(device: torch.device, *, size: int) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "zarr", "dask", "numpy"))
    card = Hardware.of(device)
    memory = f", {card.memory_bytes / 2**30:.0f} GiB" if card.memory_bytes else ""
    where = f"{card.name}{memory}; Python {sys.version.split()[0]}, {versions}, CUDA {torch.version.cuda}"
    return f"{where}; scene of {size} px, tiles of {TILE if device.type == 'cuda' else 64} px"
