"""Pictures of a review over HTTP: how many a second from memory, and how long one takes that was not fetched ahead.

The demo's scene, opened lazily from its YAML file; its slumps are the outlines. Every picture is asked for twice: drawn, then from
memory, there by as many readers at once as a browser keeps connections.
"""

import resource
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import geopandas as gpd
import numpy as np
import requests

import rtsx
from rtsx.cli.demo import demo_config
from rtsx.config.yaml import dump_yaml
from rtsx.review import create_review, serve_review
from rtsx.synthetic import demo_spec, write_demo_scene

VIEWS = ("close", "wide")
CONNECTIONS = 6
"""To one host, of Chromium and Firefox alike."""


def run(*, size: int, outlines: int, repeats: int) -> None:
    """Print the time of a picture that has to be drawn, by view, and the pictures a second from memory."""
    with tempfile.TemporaryDirectory() as folder:
        made = write_demo_scene(demo_spec(size=size), Path(folder) / "scene")
        cube = Path(folder) / "cube.yaml"
        cube.write_bytes(dump_yaml(demo_config(made)).encode())
        slumps = gpd.read_parquet(made.scene.truth).head(outlines)
        slumps["footprint_id"] = [f"slump{number}" for number in range(len(slumps))]
        review = create_review(
            slumps, f"{folder}/review", cubes={"2024": str(cube)}, opener=rtsx.open_cube, order="random"
        )
        with serve_review(review, opener=rtsx.load_cube_recipe) as address:
            token = review.admit("reader")
            print(f"review of {len(review.outlines)} outlines over the demo's scene, {size} x {size} px")
            for view in VIEWS:
                paths = [f"{address}api/picture/{row}/{view}/0" for row in range(len(review.outlines))]
                started = _processor_s()
                drawn = [_fetch([path], token=token)[0] for path in paths]
                busy = (_processor_s() - started) / len(paths)
                began = time.perf_counter()
                with ThreadPoolExecutor(CONNECTIONS) as pool:
                    shares = [(paths * repeats)[first::CONNECTIONS] for first in range(CONNECTIONS)]
                    kept = list(pool.map(lambda share: _fetch(share, token=token), shares))
                rate = sum(map(len, kept)) / (time.perf_counter() - began)
                print(
                    f"{view:6} drawn: median {np.median(drawn):.2f} s, longest {max(drawn):.2f} s, {busy:.2f} s of processor; "
                    f"from memory: {rate:.0f} a second"
                )


def _fetch(paths: Sequence[str], *, token: str) -> list[float]:
    """Seconds of each picture, asked for one after the other over one connection."""
    seconds = []
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {token}"
        for path in paths:
            started = time.perf_counter()
            session.get(path, timeout=60).raise_for_status()
            seconds.append(time.perf_counter() - started)
    return seconds


def _processor_s() -> float:
    """Of this process and all its threads, the readers among them."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
