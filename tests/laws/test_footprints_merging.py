"""Law 5 across predictions: cells outlined one by one and merged give the outlines of the whole map, to the last bit."""

import geopandas
import numpy as np
import pandas as pd
import rioxarray  # noqa: F401  registers the accessor .rio
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from rtsx.footprints import extract_footprints, merge_footprints, validate_footprints

EDGE_DISTANCE = 2
PIXEL_M2 = 9.0


@st.composite
def cut_map(draw):
    """A map of many corners, holes and invalid pixels, water on it, and a division into cells."""
    height, width = draw(st.integers(3, 12)), draw(st.integers(3, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.2, 0.4, 0.6, 0.8, 1.0]))
    level = np.where(rng.random((height, width)) < density, rng.integers(50, 101, (height, width)), 10)
    valid = rng.random((height, width)) >= draw(st.sampled_from([0.0, 0.05, 0.2]))
    water = rng.random((height, width)) < 0.3
    cuts = [sorted(draw(st.sets(st.integers(1, length - 1), max_size=2))) for length in (height, width)]
    order = draw(st.permutations(range((len(cuts[0]) + 1) * (len(cuts[1]) + 1))))
    return level, valid, water, cuts, order, draw(st.sampled_from(["uint8", "float32"]))


def prediction(level, valid, *, dtype="uint8"):
    scaled = np.where(valid, level, 255).astype("uint8") if dtype == "uint8" else (level / 100).astype("float32")
    attrs = {"scale_factor": 0.01, "_FillValue": 255} if dtype == "uint8" else {}
    binary = np.where(valid, level >= 50, 255).astype("uint8")
    height, width = level.shape
    pred = xr.Dataset(
        {
            "probability": (("y", "x"), scaled, attrs),
            "binary": (("y", "x"), binary, {"_FillValue": 255}),
            "valid": (("y", "x"), valid),
        },
        coords={"y": 3000 - 3 * (np.arange(height) + 0.5), "x": -1_999_998 + 3 * (np.arange(width) + 0.5)},
        attrs={"bundle_id": "demo"},
    )
    return pred.rio.write_crs("EPSG:3413")


def cells(pred, cuts):
    """The parts of a map with their halos."""
    for rows in intervals(cuts[0], pred.sizes["y"]):
        for columns in intervals(cuts[1], pred.sizes["x"]):
            (top, bottom), (left, right) = (
                (min(EDGE_DISTANCE, start), min(EDGE_DISTANCE, length - stop))
                for (start, stop), length in ((rows, pred.sizes["y"]), (columns, pred.sizes["x"]))
            )
            # A side that would have a narrower halo takes all that there is: then the rest is an end of the data.
            part = pred.isel(y=slice(rows[0] - top, rows[1] + bottom), x=slice(columns[0] - left, columns[1] + right))
            yield part, (top, bottom, left, right)


def intervals(cuts, length):
    return list(zip([0, *cuts], [*cuts, length], strict=True))


def padded(level, valid, water):
    """Invalid ground around the map, so that every halo is whole."""
    pad = EDGE_DISTANCE
    return np.pad(level, pad), np.pad(valid, pad), np.pad(water, pad)


def extract(pred, **keywords):
    return extract_footprints(pred, edge_distance=EDGE_DISTANCE, **keywords)


def assert_same(one, other):
    one, other = (table.sort_values("footprint_id").reset_index(drop=True) for table in (one, other))
    assert one.crs == other.crs
    assert shapely.equals_exact(one.geometry.array, other.geometry.array, tolerance=0).all()
    pd.testing.assert_frame_equal(one.drop(columns="geometry"), other.drop(columns="geometry"), check_exact=True)


@settings(max_examples=20, deadline=None)
@given(cut_map(), st.sampled_from([0.0, 3.5 * PIXEL_M2, 8.5 * PIXEL_M2]))
def test_cells_merge_to_the_whole(case, min_area_m2):
    level, valid, water, cuts, order, dtype = case
    cuts = [[cut + EDGE_DISTANCE for cut in axis] for axis in cuts]
    level, valid, water = padded(level, valid, water)
    pred = prediction(level, valid, dtype=dtype)
    on_water = pred["valid"].copy(data=water)
    whole = extract(pred, min_area_m2=min_area_m2, water=on_water)
    parts = [extract(part, min_area_m2=min_area_m2, water=on_water, halo=halo) for part, halo in cells(pred, cuts)]
    merged = merge_footprints([parts[number] for number in order], min_area_m2=min_area_m2)
    validate_footprints(merged)
    assert list(merged["footprint_id"]) == list(whole["footprint_id"])
    columns = [name for name in merged.columns if name not in ("cut", "prob_counts")]
    assert_same(merged[columns], whole)


@settings(max_examples=12, deadline=None)
@given(cut_map())
def test_merging_in_steps_is_merging_at_once(case):
    level, valid, water, cuts, order, _ = case
    cuts = [[cut + EDGE_DISTANCE for cut in axis] for axis in cuts]
    level, valid, _ = padded(level, valid, water)
    parts = [extract(part, min_area_m2=0, halo=halo) for part, halo in cells(prediction(level, valid), cuts)]
    at_once = merge_footprints(parts, min_area_m2=30)
    so_far = parts[order[0]]
    for number in order[1:]:
        so_far = merge_footprints([so_far, parts[number]], min_area_m2=30, complete=False)
    in_steps = merge_footprints([so_far], min_area_m2=30)
    assert_same(in_steps, at_once)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
def test_overlapping_scenes_unite_in_any_order(seed, count):
    """Ground, ids and statistics of the union do not depend on the order of scenes and rows."""
    rng = np.random.default_rng(seed)
    level = np.where(rng.random((14, 14)) < 0.4, rng.integers(50, 101, (14, 14)), 10)
    scenes = []
    for number in range(count):
        y, x = rng.integers(0, 8, 2)
        part = prediction(level, np.ones(level.shape, bool)).isel(y=slice(y, y + 6), x=slice(x, x + 6))
        scenes.append(extract(part.assign_coords(scene_id=f"s{number}"), min_area_m2=0))
    filled = [scene for scene in scenes if len(scene)]
    one = merge_footprints(scenes)
    shuffled = [scenes[number].sample(frac=1, random_state=number) for number in rng.permutation(count)]
    assert_same(merge_footprints(shuffled), one)
    ground = shapely.union_all([shape for scene in filled for shape in scene.geometry])
    assert one.union_all().symmetric_difference(ground).area == 0
    # Each of the united outlines is one object: none meets another.
    assert len(geopandas.GeoSeries(one.geometry).sindex.query(one.geometry, predicate="intersects")[0]) == len(one)
