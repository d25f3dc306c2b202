"""`rtsx demo`: the main job on a scene that the model has never seen, with its score and a picture."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import rtsx
from rtsx.cli import options
from rtsx.cli.console import Commands, print_info, progress, show, warn
from rtsx.cli.footprints import write_outlines
from rtsx.cli.info import tiling_line
from rtsx.cli.predict import write_cogs
from rtsx.errors import MissingExtraError
from rtsx.storage import write_whole
from rtsx.synthetic.spec import DEMO_SEED

if TYPE_CHECKING:  # heavy, and `--help` should not wait for them
    import pandas as pd
    import xarray as xr

    from rtsx.synthetic import DemoFiles, SceneFiles

EXPECTED_IOU = 0.60
"""Least IoU of the demo's own scene; less means that something is broken."""
OBJECT_IOU = 0.5
"""Least IoU of an outline and a slump that are the same one."""
MIN_AREA_M2 = 288.0
"""Smaller objects are neither outlined nor asked for, m²: 32 pixels of 3 m."""
_FEW = 6
"""Slumps of the truth below which scores are those of single slumps; scenes of 1024 px had 6 to 13, of 2048 px 36 to 44 (seeds 5, 6, 7, 21, 42)."""
_SIZE = 2048
"""Side of the demo's own scene, px."""

app = Commands()


@dataclass
class _Clock:
    """How long each step took."""

    rows: list[tuple[str, str]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        print_info(f"{name} ...")
        started = time.perf_counter()
        yield
        self.rows.append((name, f"{time.perf_counter() - started:.1f} s"))


@app.command()
def demo(
    *,
    out: Annotated[Path, typer.Option(help="Folder for everything that is made.")] = Path("demo-output"),
    size: Annotated[
        int,
        typer.Option(
            metavar="PX",
            help="Side of the scene, in pixels of 3 m; below 1024 it has too few slumps for its scores to say much.",
            min=256,
        ),
    ] = _SIZE,
    seed: Annotated[
        int, typer.Option(help="Seed of the scene; 1000-3007 have trained or tested the model.", min=0)
    ] = DEMO_SEED,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Make a tundra scene with thaw slumps, map it, score the map against the truth and draw both.

    Everything goes the way of real data: a STAC catalog of GeoTIFFs in three projections to a cube of ten layers on the
    Arctic grid, the cube and a model to a Zarr map, the map to outlines (GeoParquet) and GeoTIFFs.

    Examples
    --------
    rtsx demo

    rtsx demo --seed 42 --size 1024 --out another
    """
    if find_spec("matplotlib") is None:
        raise MissingExtraError(
            "The demo draws a picture with matplotlib, which is not installed: pip install 'rtsx[view]'"
        )
    options.require_new(out, what="a folder", overwrite=overwrite)
    import geopandas as gpd  # here, because neither `--help` nor a refusal waits for them

    from rtsx.config.yaml import dump_yaml
    from rtsx.model.allocator import configure_malloc
    from rtsx.synthetic import demo_bundle_path, demo_spec, remove_demo_scenes, write_demo_scene

    configure_malloc()
    clock = _Clock()
    started = time.perf_counter()
    with clock.step("scene"):
        remove_demo_scenes(out / "scene")
        made = write_demo_scene(demo_spec(size=size, seed=seed), out / "scene")
        files = made.scene
        write_whole(out / "cube.yaml", dump_yaml(demo_config(made)).encode())
    with clock.step("cube"):
        cube = rtsx.open_cube(out / "cube.yaml")
    with clock.step("prediction"):
        pred = rtsx.predict_cube(cube, rtsx.ModelBundle.open(demo_bundle_path()))
        with progress("predicting", counts="tiles-"):
            rtsx.write_cube(pred, out / "map.zarr", overwrite=True)
    stored = options.open_prediction(str(out / "map.zarr"))
    with clock.step("outlines and GeoTIFFs"):
        count = write_outlines(stored, str(out / "slumps.parquet"), min_area_m2=MIN_AREA_M2, overwrite=True)
        write_cogs(stored, str(out), overwrite=True)
    with clock.step("score and picture"):
        score = _score_and_draw(cube, stored, files=files, out=out)
    true = len(gpd.read_parquet(files.truth))
    if true < _FEW:
        warn(
            f"The truth of this scene has {true} slumps, too few for scores to say much. Take --size 1024 or more; 2048 is usual."
        )
    rows = [
        ("IoU", f"{score['iou']:.3f}"),
        ("precision", f"{score['precision']:.3f}"),
        ("recall", f"{score['recall']:.3f}"),
        ("slumps", f"{count} outlined, {true} in the truth"),
        ("objects", f"F1 {score['object_f1']:.3f}: IoU >= {OBJECT_IOU}, from {MIN_AREA_M2:g} m² on"),
        ("tiles", tiling_line(stored)),
        *clock.rows,
        ("total", f"{time.perf_counter() - started:.1f} s"),
        (
            "written",
            "\n".join(
                str(out / name) for name in ("cube.yaml", "map.zarr", "slumps.parquet", "probability.tif", "binary.tif")
            ),
        ),
        ("picture", out / "demo.png"),
    ]
    show(f"Scene {seed}, {size} x {size} px of 3 m, on the Arctic grid", *rows)
    if (size, seed) == (_SIZE, DEMO_SEED) and score["iou"] < EXPECTED_IOU:
        raise RuntimeError(f"the demo's own scene has to reach an IoU of {EXPECTED_IOU}; it reached {score['iou']:.3f}")


def demo_config(made: "DemoFiles") -> dict[str, Any]:
    """Return the config of the scene's cube: ten layers on the Arctic grid, each read from the catalog in its own projection."""
    from rtsx.cube.rasterio import read_header
    from rtsx.grid import lonlat_polygon

    footprint = read_header(made.scene.image).geobox
    west, south, east, north = lonlat_polygon(footprint.extent.geom, str(footprint.crs)).bounds
    catalog = {"path": "scene/catalog.json"}
    return {
        "preset": "tss-v1",
        "grid": {"crs": "EPSG:3413", "resolution": 3},
        "region": {"bbox": [west, south, east, north]},
        "sources": {
            "planetscope": {
                "catalog": catalog | {"collections": "planetscope"},
                "asset": "ortho_analytic_4b_sr",
                "layers": ["blue", "green", "red", "nir"],
                "quality": {"asset": "ortho_udm2"},
            },
            "dem": {
                "catalog": catalog | {"collections": "arcticdem-mosaic-10m"},
                "terrain": ["relative_elevation", "slope"],
            },
            "tcvis": {
                "catalog": catalog | {"collections": "tcvis"},
                "layers": ["tc_brightness", "tc_greenness", "tc_wetness"],
            },
        },
    }


def _score_and_draw(cube: "xr.Dataset", stored: "xr.Dataset", *, files: "SceneFiles", out: Path) -> "pd.Series[float]":
    """Return scores of the map by name, as `rtsx.evaluate` has them; the picture is drawn."""
    import geopandas as gpd

    from rtsx.cli import picture

    truth = gpd.read_parquet(files.truth)
    outlines = gpd.read_parquet(out / "slumps.parquet")
    evaluation = rtsx.evaluate(stored, truth, object_iou=OBJECT_IOU, min_object_area_m2=MIN_AREA_M2, bootstrap=0)
    score = evaluation.pooled.iloc[0]
    picture.draw(
        picture.PictureLayers(cube=cube, pred=stored, outlines=outlines, truth=truth),
        out / "demo.png",
        title=f"A synthetic scene that the model has not seen: IoU {score['iou']:.2f}, "
        f"precision {score['precision']:.2f}, recall {score['recall']:.2f}",
    )
    return score
