"""What training reaches on real data that is small enough to ship: land cover under aerial imagery, and a coast with slumps.

`RTSX_REAL_DATA` says where the data is, else ``../shared/data`` beside the checkout.
"""

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import rtsx
from rtsx.cube import geobox_of
from rtsx.evaluation import EvaluationScene, annotator_agreement
from rtsx.labels import LabelRaster, open_label_raster, rasterize_labels
from rtsx.scores import majority
from rtsx.training import (
    AugmentationSpec,
    LossTerm,
    NetworkSpec,
    OptimisationSpec,
    SamplingSpec,
    TrainingRecipe,
    TrainingScene,
    train,
)

LEFT_OUT = (6, 7)
"""Patches that nothing is learnt or chosen from."""
LAYER_SETS = {"4 bands": range(4), "8 bands": range(8), "8 bands, Landsat": [*range(8), *range(10, 28)]}
"""Channels of the patches: aerial imagery of one year, of two, and two seasons of Landsat."""
STEPS = 25
"""Batches of an epoch."""
HALF = 126
"""Rows of the Bykovsky chip that are learnt from; the other 125 are tested on, and the other way round."""


def run(*, epochs: int) -> None:
    """Train, predict what was left out, and print the scores."""
    folder = Path(os.environ.get("RTSX_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        raise SystemExit(f"No real data: set RTSX_REAL_DATA, or put it at {folder}.")
    land_cover(folder / "chesapeake_mini" / "train", epochs=epochs)
    coast(folder / "rts_expert_s2l8" / "Bykovsky", epochs=epochs)


def land_cover(folder: Path, *, epochs: int) -> None:
    """Low vegetation against the rest: learnt from six patches, scored on the two others together."""
    print("chesapeake_mini, class 3 against the rest: trained on patches 0-5, scored on 6 and 7")
    for name, channels in LAYER_SETS.items():
        scenes = [patch(folder, number, channels) for number in range(8)]
        kept = [scene for number, scene in enumerate(scenes) if number not in LEFT_OUT]
        started = time.perf_counter()
        bundle = trained(name, kept, tile=128, epochs=epochs)
        scenes = [
            EvaluationScene(name=scenes[number].name, prediction=predicted(scenes[number].cube, bundle), truth=truth)
            for number in LEFT_OUT
            for truth in [scenes[number].truth]
        ]
        score = rtsx.evaluate(scenes, bootstrap=0).pooled.iloc[0]
        print(
            f"  {name:17} IoU {score['iou']:.3f}  precision {score['precision']:.3f}  recall {score['recall']:.3f}  "
            f"average precision {score['average_precision']:.3f}  {time.perf_counter() - started:.0f} s",
            flush=True,
        )


def coast(folder: Path, *, epochs: int) -> None:
    """Slumps as the majority of ten experts sees them: each half of a chip is tested with what the other half taught."""
    chip = rtsx.open_cube(next(folder.glob("S2_*.tif")), sensor="sentinel2-l2a")
    drawn = {path.stem.split("_")[0]: gpd.read_file(path) for path in sorted((folder / "experts").glob("*.shp"))}
    for name, learnt, tested in (
        ("south", slice(0, HALF), slice(HALF, 251)),
        ("north", slice(HALF, 251), slice(0, HALF)),
    ):
        scene = TrainingScene(
            name=f"all but the {name}", cube=chip.isel(y=learnt), truth=agreed(drawn, chip.isel(y=learnt))
        )
        started = time.perf_counter()
        bundle = trained(scene.name, [scene], tile=64, epochs=epochs)
        ground = chip.isel(y=tested)
        agreement = annotator_agreement(drawn, ground, models={"model": predicted(ground, bundle)})
        print(f"Bykovsky, Sentinel-2, the {name}, tested with what the other half taught, beside the experts")
        print("  " + str(agreement).replace("\n", "\n  "))
        print(f"  {time.perf_counter() - started:.0f} s", flush=True)


def patch(folder: Path, number: int, channels: Sequence[int]) -> TrainingScene:
    """One patch of 256 x 256 px as a scene; it says not where it lies, so each gets ground of its own."""
    (path,) = folder.glob(f"*-{number}.npz")
    values: NDArray[np.float32] = np.load(path)["arr_0"][0]
    geobox = GeoBox((256, 256), Affine(1, 0, 3e5 + 1000 * number, 0, -1, 4.1e6), "EPSG:26917")
    coords = xr_coords(geobox, always_yx=True)
    cube = xr.Dataset({f"band_{channel}": (("y", "x"), values[channel]) for channel in channels}, coords=coords)
    cover = xr.DataArray(values[8].astype(np.uint8), dims=("y", "x"), coords=coords)
    truth = open_label_raster(cover, classes={"target": [3]})
    return TrainingScene(name=f"patch {number}", cube=cube, truth=truth)


def agreed(drawn: dict[str, gpd.GeoDataFrame], cube: xr.Dataset) -> LabelRaster:
    """Where at least half of the experts see a slump."""
    whole = (slice(0, cube.sizes["y"]), slice(0, cube.sizes["x"]))
    truths = [
        rasterize_labels(one.assign(class_name="target"), geobox_of(cube), classes=["target"]) for one in drawn.values()
    ]
    votes = np.sum([truth.read(whole) == 1 for truth in truths], axis=0)
    seen = majority(votes, voters=len(drawn)).astype(np.uint8)
    coords = {name: cube.coords[name] for name in ("y", "x", "spatial_ref")}
    return open_label_raster(xr.DataArray(seen, dims=("y", "x"), coords=coords), classes={"target": [1]})


def trained(name: str, scenes: Sequence[TrainingScene], *, tile: int, epochs: int) -> rtsx.ModelBundle:
    """A small U-Net, the same for all; the last epoch is kept, for nothing is left to choose by."""
    recipe = TrainingRecipe(
        id=name,
        training=tuple(scenes),
        tile=tile,
        overlap=tile // 4,
        network=NetworkSpec(
            architecture="Unet",
            encoder="resnet18",
            options={"encoder_depth": 4, "decoder_channels": [128, 64, 32, 16]},
        ),
        sampling=SamplingSpec(negatives=1.0),
        augmentations=tuple(
            AugmentationSpec(name=turn) for turn in ("HorizontalFlip", "VerticalFlip", "RandomRotate90")
        ),
        losses=(LossTerm(name="SoftBCEWithLogitsLoss"), LossTerm(name="JaccardLoss")),
        optimisation=OptimisationSpec(
            learning_rate=1e-3, optimiser_options={"weight_decay": 0.01}, warmup=0.1, ema=0.98
        ),
        epochs=epochs,
        steps_per_epoch=STEPS,
        batch_size=8,
    )
    with tempfile.TemporaryDirectory() as out:
        return train(recipe, Path(out) / "run").bundle


def predicted(cube: xr.Dataset, bundle: rtsx.ModelBundle) -> xr.Dataset:
    """The map, with the tiles of the bundle."""
    return rtsx.predict_cube(cube, bundle, tile="bundle", overlap="bundle", backend="eager")
