"""Regions on paper: zones, dates, a ground under all scenes, tiles of one lattice."""

from itertools import pairwise

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from rtsx.errors import CubeError
from rtsx.synthetic import RegionSpec
from rtsx.synthetic.region import corner, ground_outline

SPEC = RegionSpec(seed=4, size=256, scenes=4, years=(2022, 2024))

specs = st.builds(
    RegionSpec,
    seed=st.integers(0, 10_000),
    size=st.integers(64, 700),
    scenes=st.integers(1, 9),
    years=st.sampled_from([(2024,), (2021, 2022, 2024)]),
    longitude=st.floats(-133, -131),
    latitude=st.floats(60, 75),
    dem_resolution_m=st.sampled_from([2, 10, 32]),
    dem_overlap=st.sampled_from([0, 10]),
)


def raster_corners(scene, crs):
    """Corners of a scene's raster in another CRS (corner, 2)."""
    side = scene.size * 3
    x = np.array([scene.left, scene.left + side, scene.left + side, scene.left])
    y = np.array([scene.top, scene.top, scene.top - side, scene.top - side])
    return np.stack(Transformer.from_crs(scene.crs, crs, always_xy=True).transform(x, y), axis=1)


def test_half_of_the_scenes_lie_in_each_zone_and_swap_with_the_year():
    zones = [scene.crs for scene in SPEC.scene_specs]
    assert zones[:4] == ["EPSG:32608", "EPSG:32609"] * 2
    assert zones[4:] == ["EPSG:32609", "EPSG:32608"] * 2


def test_dates_differ_and_lie_in_the_years_asked():
    dates = [scene.date for scene in SPEC.scene_specs]
    assert dates == sorted(set(dates))
    assert [date.year for date in dates] == [2022] * 4 + [2024] * 4
    assert {date.month for date in dates} <= {7, 8}


@given(specs)
@settings(max_examples=40)
def test_no_scene_reaches_beyond_the_ground(spec):
    ground = spec.ground_spec
    box = shapely.box(ground.left, ground.top - ground.size * 3, ground.left + ground.size * 3, ground.top)
    for scene in spec.scene_specs:
        assert scene.ground_spec == ground
        assert box.buffer(-96 * 3 + 1).contains(shapely.Polygon(raster_corners(scene, spec.crs)))
    assert len({scene.image_id for scene in spec.scene_specs}) == len(spec.scene_specs)


def test_neighbouring_scenes_overlap():
    polygons = [shapely.Polygon(raster_corners(scene, SPEC.crs)) for scene in SPEC.scene_specs[:4]]
    for one, other in pairwise(polygons):
        assert one.intersection(other).area > 0.1 * one.area


def test_a_scene_of_the_grounds_zone_lies_on_its_lattice():
    ground = SPEC.ground_spec
    for scene in SPEC.scene_specs:
        assert (scene.left % 3, scene.top % 3) == (0, 0)
    assert (ground.left % 3, ground.top % 3) == (0, 0)


@given(specs)
@settings(max_examples=40)
def test_tiles_share_one_lattice_abut_and_cover_the_ground(spec):
    tiles = spec.dem_tiles
    step, edge = spec.dem_resolution_m, spec.dem_overlap
    first = tiles[0]
    side = first.shape[0] - 2 * edge
    boxes = []
    for tile in tiles:
        assert tile.shape == (side + 2 * edge, side + 2 * edge)
        assert (tile.transform.a, tile.transform.e) == (step, -step)
        # Whole tiles apart from the first one, and whole pixels from the projection's origin.
        assert (tile.transform.c - first.transform.c) % (side * step) == 0
        assert (tile.transform.f - first.transform.f) % (side * step) == 0
        assert (tile.transform.c % step, tile.transform.f % step) == (0, 0)
        left, top = tile.transform.c + edge * step, tile.transform.f - edge * step
        boxes.append(shapely.box(left, top - side * step, left + side * step, top))
    assert len({tile.name for tile in tiles}) == len(tiles)
    assert len(tiles) > 3
    for index, one in enumerate(boxes):
        assert all(one.intersection(other).area == 0 for other in boxes[:index])
    outline = ground_outline(spec.ground_spec, crs="EPSG:3413")
    assert shapely.union_all(boxes).contains(outline.buffer(-3 * step))


@pytest.mark.parametrize("target", ["EPSG:32608", "EPSG:32609"])
def test_a_corner_lies_on_whole_pixels_around_the_middle(target):
    left, top = corner(np.array([628_613.4, 7_479_081.5]), size=101, source="EPSG:32608", target=target)
    x, y = Transformer.from_crs("EPSG:32608", target, always_xy=True).transform(628_613.4, 7_479_081.5)
    assert (left % 3, top % 3) == (0, 0)
    assert abs(left + 151.5 - x) <= 1.5 + 1e-6
    assert abs(top - 151.5 - y) <= 1.5 + 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scenes": 0}, "1-50 scenes a year.*scenes=0"),
        ({"years": (2024, 2022)}, r"ascending years.*years=\(2024, 2022\)"),
        ({"years": ()}, "ascending years"),
        ({"cloud_cover": 0.8}, "cloud_cover 0-0.5.*0.8"),
        ({"dem_overlap": -1}, "dem_overlap 0-100.*-1"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    with pytest.raises(CubeError, match=message):
        RegionSpec(seed=1, **change)
