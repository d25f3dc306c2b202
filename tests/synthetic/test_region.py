"""Regions on paper: zones, dates, a ground under all scenes, tiles of one lattice."""

import hashlib
import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from scipy import ndimage

from rtsx.errors import CubeError, OutputExistsError
from rtsx.synthetic import RegionSpec, make_scene, region, write_region
from rtsx.synthetic.noise import grid_north_deg, ground_positions, sample
from rtsx.synthetic.region import corner, ground_outline
from rtsx.synthetic.scene import UDM2_BANDS, Sun, illuminate, write_images
from rtsx.synthetic.stac import scene_item

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


SMALL = RegionSpec(seed=2, size=64, scenes=2)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Folder of that region, for whoever changes nothing in it."""
    folder = tmp_path_factory.mktemp("small") / "new"
    write_region(SMALL, folder)
    return folder


def digests(folder):
    """Digest of every file by its path."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def interpolated(path, longitude, latitude, *, bands):
    """Bilinear values (band, point) of a file, and which points lie among four valid pixels."""
    with rasterio.open(path) as raster:
        x, y = Transformer.from_crs("EPSG:4326", raster.crs, always_xy=True).transform(longitude, latitude)
        transform = raster.transform
        pixels = raster.read(bands).astype(float)
    column, row = (x - transform.c) / transform.a, (y - transform.f) / transform.e
    places = np.stack([row, column]) - 0.5
    values = np.stack([ndimage.map_coordinates(band, places, order=1, cval=0) for band in pixels])
    return values, places


def trusted(path, places):
    """Points (point,) that the usable data mask calls clear, two pixels around."""
    with rasterio.open(path) as raster:
        clear = raster.read(UDM2_BANDS.index("clear") + 1) == 1
    clear = ndimage.binary_erosion(clear, iterations=2)
    return ndimage.map_coordinates(clear.astype(np.uint8), np.round(places), order=0, cval=0) == 1


def test_scenes_of_two_zones_show_the_same_ground(region, region_ground, tmp_path):
    """At the same longitude and latitude, smooth ground has the same reflectance, but for light, gain and noise.

    The light is reckoned from what the items say about the sun. Without clouds, because their thinnest veils count as clear.
    """
    spec, ground = region.spec, region_ground.spec
    rng = np.random.default_rng(0)
    positions = rng.uniform(100, ground.size - 100, (2, 20_000)).astype(np.float32)
    x, y = ground.left + 3 * (positions[1] + 0.5), ground.top - 3 * (positions[0] + 0.5)
    longitude, latitude = Transformer.from_crs(ground.crs, "EPSG:4326", always_xy=True).transform(x, y)
    rough = sum(ndimage.generic_gradient_magnitude(band, ndimage.sobel) for band in region_ground.reflectance)
    rough = ndimage.maximum_filter(rough, 5)
    smooth = sample(rough, positions, cell=1) < np.quantile(rough, 0.3)
    seen = []
    for one in spec.scene_specs:
        scene = make_scene(replace(one, cloud_cover=0.0, haze=0.0), ground=region_ground)
        image, udm2 = tmp_path / f"{one.image_id}.tif", tmp_path / f"{one.image_id}_udm2.tif"
        write_images(scene, image=image, udm2=udm2)
        sun = scene_item(scene, image=image, udm2=udm2).properties
        north = grid_north_deg(ground.crs, (spec.longitude, spec.latitude))
        toward = Sun(azimuth_deg=sun["view:sun_azimuth"] - north, elevation_deg=sun["view:sun_elevation"])
        light = sample(illuminate(region_ground.elevation, sun=toward), positions, cell=1)
        values, places = interpolated(image, longitude, latitude, bands=[1, 2, 3, 4])
        seen.append((values / 10_000 / light, trusted(udm2, places) & smooth))
    pairs = [(one, other) for one in (0, 2) for other in (1, 3)]
    for one, other in pairs:
        assert spec.scene_specs[one].crs != spec.scene_specs[other].crs
        both = seen[one][1] & seen[other][1]
        assert both.sum() > 100
        for first, second in zip(seen[one][0], seen[other][0], strict=True):
            gain = np.median(second[both] / first[both])
            assert gain == pytest.approx(1, abs=0.12)  # a deviation of 2.5 % each
            noise = 0.0012 + 0.012 * np.median(first[both])
            # Two draws of noise, each averaged over four pixels by the interpolation: 0.64 in the median.
            assert np.median(np.abs(second[both] - gain * first[both])) < 0.85 * noise


def test_a_shift_of_two_pixels_would_be_seen(region, region_ground):
    """What the neighbouring zone's scene shows matches the ground best where its header says that it lies."""
    ground = region_ground
    for scene, image, udm2 in zip(region.spec.scene_specs, region.images, region.udm2, strict=True):
        with rasterio.open(image) as raster:
            nir, transform = raster.read(4), raster.transform
        with rasterio.open(udm2) as raster:
            clear = raster.read(1) == 1
        positions = ground_positions(ground.spec, crs=scene.crs, transform=transform, shape=nir.shape)
        match = {}
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                shifted = positions + np.array([down, right], np.float32)[:, None, None]
                there = sample(ground.reflectance[3], shifted, cell=1)
                match[down, right] = np.corrcoef(there[clear], nir[clear])[0, 1]
        assert max(match, key=match.get) == (0, 0)


def test_the_tiles_of_elevation_are_one_raster(region, region_ground):
    """Every tile holds what the whole mosaic would hold there, so nothing shows at their borders."""
    for path, tile in zip(region.dem, region.spec.dem_tiles, strict=True):
        with rasterio.open(path) as raster:
            assert (raster.crs.to_epsg(), raster.transform, raster.shape) == (3413, tile.transform, tile.shape)
            assert (raster.nodata, raster.dtypes) == (-9999, ("float32",))
            height = raster.read(1)
        assert (height != -9999).any()
        row, column = np.indices(tile.shape)
        x, y = tile.transform.c + 10 * (column + 0.5), tile.transform.f - 10 * (row + 0.5)
        to_ground = Transformer.from_crs("EPSG:3413", region.spec.crs, always_xy=True)
        at_x, at_y = to_ground.transform(x, y)
        ground = region.spec.ground_spec
        places = np.stack([(ground.top - at_y) / 3 - 0.5, (at_x - ground.left) / 3 - 0.5])
        inside = ((places > 0) & (places < ground.size - 1)).all(axis=0)
        exact = ndimage.map_coordinates(region_ground.elevation, places, order=1)
        np.testing.assert_allclose(height[inside], exact[inside], atol=0.01)
        assert (height[~((places > -1) & (places < ground.size)).all(axis=0)] == -9999).all()


def test_tiles_may_overlap_like_the_published_ones(tmp_path):
    files = write_region(replace(SMALL, dem_overlap=10), tmp_path / "new")
    whole = {}
    for path, tile in zip(files.dem, files.spec.dem_tiles, strict=True):
        with rasterio.open(path) as raster:
            height = raster.read(1)
        for (row, column), value in np.ndenumerate(height):
            key = (tile.transform.c / 10 + column, tile.transform.f / 10 - row)
            assert whole.setdefault(key, value) == value
    assert len(whole) < sum(np.prod(tile.shape) for tile in files.spec.dem_tiles)


def test_auxiliary_layers_cover_every_scene(region):
    """A hundred metres around, too: terrain layers look that far."""
    for scene in region.spec.scene_specs:
        side = scene.size * 3
        x, y = np.meshgrid(
            np.linspace(scene.left - 100, scene.left + side + 100, 60),
            np.linspace(scene.top + 100, scene.top - side - 100, 60),
        )
        covered = np.zeros(x.shape, bool)
        for path in region.dem:
            covered |= stored(path, x, y, crs=scene.crs)
        assert covered.all()
        assert stored(region.tcvis, x, y, crs=scene.crs).all()


def stored(path, x, y, *, crs):
    """Whether points lie on a pixel of the file that is not nodata."""
    with rasterio.open(path) as raster:
        at_x, at_y = Transformer.from_crs(crs, raster.crs, always_xy=True).transform(x, y)
        transform, values = raster.transform, raster.read(1)
        column = np.floor((at_x - transform.c) / transform.a).astype(int)
        row = np.floor((at_y - transform.f) / transform.e).astype(int)
        inside = (row >= 0) & (column >= 0) & (row < raster.height) & (column < raster.width)
        hit = values[np.clip(row, 0, raster.height - 1), np.clip(column, 0, raster.width - 1)]
        return inside & (hit != raster.nodata)


def test_truth_is_the_grounds(region, region_ground):
    truth = geopandas.read_parquet(region.truth)
    assert truth.crs == "EPSG:4326"
    assert [*truth.columns] == ["region", "site", "area_m2", "geometry"]
    assert set(truth["site"]) == {"SyntheticBorder_0015"}
    assert len(truth) == len(region_ground.slumps()) > 3
    assert truth.to_crs(region.spec.crs).area.sum() == pytest.approx(region_ground.slumps().area.sum(), rel=1e-6)


def test_every_raster_is_a_cog(region):
    for path in region.rasters:
        with rasterio.open(path) as raster:
            assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert raster.tags()["SYNTHETIC"] == "rtsx"


def test_the_same_spec_gives_the_same_bytes_and_another_seed_others(tmp_path, small):
    write_region(SMALL, tmp_path / "again")
    files = write_region(replace(SMALL, seed=3), tmp_path / "other")
    assert digests(small) == digests(tmp_path / "again")
    assert not {path.name for path in files.images} & {path.name for path in small.rglob("*_SR.tif")}


def test_an_interrupted_run_is_finished_by_the_next(tmp_path, monkeypatch, small):
    broken, calls = tmp_path / "broken", []

    def interrupted(path, height, **how):
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"II*\0 half a file")
            raise KeyboardInterrupt
        write_dem(path, height, **how)

    write_dem = region.write_dem
    with monkeypatch.context() as patched:
        patched.setattr(region, "write_dem", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_region(SMALL, broken)
    assert not (broken / "catalog.json").exists()
    write_region(SMALL, broken)
    assert digests(broken) == digests(small)


def test_what_is_there_is_not_overwritten(tmp_path, small):
    shutil.copytree(small, tmp_path / "one")
    with pytest.raises(OutputExistsError, match=r"found catalog.json. Choose another folder"):
        write_region(SMALL, tmp_path / "one")
    (tmp_path / "one" / "catalog.json").unlink()
    with pytest.raises(OutputExistsError, match=r"interrupted run of this region.*with seed=2 left"):
        write_region(replace(SMALL, seed=5), tmp_path / "one")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="Expected an empty folder"):
        write_region(SMALL, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_the_description_makes_the_region_again(region):
    fields = json.loads(region.description.read_text())
    assert RegionSpec(**{**fields, "years": tuple(fields["years"])}) == region.spec
