"""Scenes: formats and tags of the real products, one ground under all layers, truth that fits the pixels."""

import datetime as dt
import json

import geopandas
import numpy as np
import pytest
import rasterio
from pyproj import Transformer
from rasterio.features import rasterize
from scipy import ndimage

from rtsx.errors import OutputExistsError
from rtsx.synthetic import SceneSpec, make_ground, make_scene, write_scene
from rtsx.synthetic.noise import ground_positions, sample
from rtsx.synthetic.scene import TCVIS_STEP_DEG, UDM2_BANDS

SPEC = SceneSpec(seed=21, size=512, slumps_per_km2=4.0)


@pytest.fixture(scope="module")
def ground():
    return make_ground(SPEC.ground_spec)


@pytest.fixture(scope="module")
def scene(ground):
    return make_scene(SPEC, ground=ground)


@pytest.fixture(scope="module")
def files(ground, tmp_path_factory):
    return write_scene(SPEC, tmp_path_factory.mktemp("scene") / "new", ground=ground)


def test_the_image_is_a_planetscope_like_cog(files, scene):
    with rasterio.open(files.image) as raster:
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.dtypes == ("uint16",) * 4
        assert raster.descriptions == ("blue", "green", "red", "nir")
        assert raster.scales == (0.0001,) * 4
        assert raster.nodata == 0
        assert (raster.crs.to_epsg(), raster.res, raster.block_shapes[0]) == (32608, (3, 3), (512, 512))
        assert raster.transform[2:6:3] == (SPEC.left, SPEC.top)
        np.testing.assert_array_equal(raster.read(), scene.image)


def test_the_usable_data_mask_lies_on_the_image(files, scene):
    with rasterio.open(files.image) as image, rasterio.open(files.udm2) as mask:
        assert (mask.crs, mask.transform, mask.shape) == (image.crs, image.transform, image.shape)
        assert mask.descriptions == UDM2_BANDS
        assert mask.dtypes == ("uint8",) * 8
        np.testing.assert_array_equal(mask.read(), scene.udm2)


def test_trends_and_elevation_have_the_published_grids(files):
    with rasterio.open(files.tcvis) as raster:
        assert raster.crs.to_epsg() == 4326
        assert raster.descriptions == ("tc_brightness", "tc_greenness", "tc_wetness")
        assert raster.dtypes == ("uint8",) * 3
        assert raster.res == pytest.approx((TCVIS_STEP_DEG, TCVIS_STEP_DEG))
        assert raster.transform.c / TCVIS_STEP_DEG == pytest.approx(
            round(raster.transform.c / TCVIS_STEP_DEG), abs=1e-5
        )
    with rasterio.open(files.dem) as raster:
        assert (raster.crs.to_epsg(), raster.res, raster.nodata) == (3413, (10, 10), -9999)
        assert raster.dtypes == ("float32",)
        assert raster.transform.c % 10 == 0


def test_every_pixel_of_the_image_is_covered_by_the_auxiliary_layers(files, scene):
    rows, columns = np.nonzero(scene.image[0])
    x, y = SPEC.left + 3 * (columns + 0.5), SPEC.top - 3 * (rows + 0.5)
    for path, crs in ((files.dem, "EPSG:3413"), (files.tcvis, "EPSG:4326")):
        with rasterio.open(path) as raster:
            to_raster = Transformer.from_crs(SPEC.crs, crs, always_xy=True)
            at_x, at_y = to_raster.transform(x[::37], y[::37])
            column, row = (at_x - raster.transform.c) / raster.res[0], (raster.transform.f - at_y) / raster.res[1]
            assert (raster.read(1)[row.astype(int), column.astype(int)] != raster.nodata).all()


def test_layers_show_the_same_ground_within_a_pixel(files, ground):
    """Bring elevation and trends back to the ground's lattice: the best match is where it was, not a pixel beside."""
    spec = ground.spec
    rows, columns = np.meshgrid(np.arange(150, 550, 3), np.arange(150, 550, 3), indexing="ij")
    x, y = spec.left + 3 * (columns + 0.5), spec.top - 3 * (rows + 0.5)
    brightness = ndimage.zoom(ground.trends[0], 4, order=1, grid_mode=True, mode="nearest")
    for path, crs, truth, step in (
        (files.dem, "EPSG:3413", ground.elevation, 3),
        (files.tcvis, "EPSG:4326", brightness, 10),
    ):
        with rasterio.open(path) as raster:
            values, transform, res = raster.read(1).astype(float), raster.transform, raster.res
        at_x, at_y = Transformer.from_crs(spec.crs, crs, always_xy=True).transform(x, y)
        place = np.stack([(transform.f - at_y) / res[1] - 0.5, (at_x - transform.c) / res[0] - 0.5])
        seen = ndimage.map_coordinates(values, place, order=1)
        errors = {
            (down, right): np.abs(seen - truth[rows + down, columns + right]).mean()
            for down in (-step, 0, step)
            for right in (-step, 0, step)
        }
        assert min(errors, key=errors.get) == (0, 0)
        assert errors[0, 0] < 0.6


def test_elevation_at_two_metres_agrees_with_ten(ground, files, tmp_path):
    fine = write_scene(SceneSpec(seed=21, size=512, slumps_per_km2=4.0, dem_resolution_m=2), tmp_path, ground=ground)
    with rasterio.open(fine.dem) as two, rasterio.open(files.dem) as ten:
        left, top = ten.transform.c, ten.transform.f
        row, column = np.meshgrid(np.arange(40, 120), np.arange(40, 120), indexing="ij")
        x, y = left + 10 * (column + 0.5), top - 10 * (row + 0.5)
        at = ((two.transform.f - y) / 2).astype(int), ((x - two.transform.c) / 2).astype(int)
        coarse, exact = ten.read(1)[row, column], two.read(1)[at]
    seen = (coarse != -9999) & (exact != -9999)
    assert seen.mean() > 0.9
    # The centre of a 10 m pixel lies in the middle of a 2 m pixel.
    np.testing.assert_allclose(coarse[seen], exact[seen], atol=1e-3)


def truth_mask(scene):
    """Pixels (y, x) whose centre lies in a slump."""
    shape = scene.image.shape[1:]
    return rasterize(scene.truth.geometry, out_shape=shape, transform=scene.transform, dtype="uint8").astype(bool)


def good_mask(scene):
    """Pixels (y, x) that rule *tss-v1* trusts: clear or light haze, and no snow, shadow, heavy haze, cloud or edge."""
    bad = ("snow", "shadow", "heavy_haze", "cloud", "unusable")
    return ~np.any([scene.udm2[UDM2_BANDS.index(name)] for name in bad], axis=0)


def test_truth_has_the_published_fields_and_fits_the_image(files, scene):
    truth = geopandas.read_parquet(files.truth)
    assert truth.crs == "EPSG:4326"
    assert [*truth.columns] == ["image_id", "image_date", "region", "site", "area_m2", "geometry"]
    assert set(truth["image_id"]) == {SPEC.image_id}
    assert set(truth["image_date"]) == {"2024-07-21"}
    assert truth.is_valid.all()
    assert len(truth) >= 3
    back = truth.to_crs(SPEC.crs)
    assert back.area.sum() == pytest.approx(scene.truth.area.sum(), rel=1e-6)
    assert 9 * truth_mask(scene).sum() == pytest.approx(back.area.sum(), rel=0.03)
    assert not (truth_mask(scene) & (scene.image[0] == 0)).sum() > 0.01 * truth_mask(scene).sum()


def test_slumps_are_seen_where_the_truth_says(scene):
    red, nir = (scene.image[band].astype(float) for band in (2, 3))
    ndvi = (nir - red) / np.maximum(nir + red, 1)
    good = good_mask(scene)
    truth = truth_mask(scene)
    ring = ndimage.binary_dilation(truth, iterations=12) & ~ndimage.binary_dilation(truth, iterations=3)
    assert np.median(ndvi[truth & good]) < np.median(ndvi[ring & good]) - 0.12


def test_the_scene_edge_is_slanted_and_nodata(scene):
    seen = scene.image[0] > 0
    assert 0.7 < seen.mean() < 0.85
    assert not seen[0, 0]
    assert not seen[-1, -1]
    np.testing.assert_array_equal(seen, (scene.image > 0).all(axis=0))
    np.testing.assert_array_equal(scene.udm2[UDM2_BANDS.index("unusable")] == 1, ~seen)


def test_clouds_are_bright_and_shadows_dark(scene):
    cloud, shadow, clear = (scene.udm2[UDM2_BANDS.index(name)] == 1 for name in ("cloud", "shadow", "clear"))
    assert cloud.any()
    assert shadow.any()
    blue, nir = scene.image[0], scene.image[3]
    assert np.median(blue[cloud]) > 5 * np.median(blue[clear])
    assert np.median(nir[shadow]) < 0.8 * np.median(nir[clear])


def test_the_same_spec_gives_the_same_pixels(scene):
    again = make_scene(SPEC)
    np.testing.assert_array_equal(again.image, scene.image)
    np.testing.assert_array_equal(again.udm2, scene.udm2)
    assert again.truth.equals(scene.truth)


def test_a_scene_of_the_neighbouring_zone_sees_the_same_ground(ground):
    """Another day, another zone, rotated by 5 degrees: the image matches the ground best where it lies."""
    to_zone_9 = Transformer.from_crs("EPSG:32608", "EPSG:32609", always_xy=True)
    x, y = to_zone_9.transform(SPEC.left + 768, SPEC.top - 768)
    corner = {"left": float(round(x - 600)), "top": float(round(y + 600))}
    day = dt.date(2024, 8, 9)
    neighbour = SceneSpec(seed=5, size=400, crs="EPSG:32609", **corner, date=day, ground=SPEC.ground_spec)
    seen = make_scene(neighbour, ground=ground)
    positions = ground_positions(ground.spec, crs=neighbour.crs, transform=seen.transform, shape=(400, 400))
    clear = seen.udm2[0] == 1
    assert clear.mean() > 0.5
    match = {}
    for down in (-2, 0, 2):
        for right in (-2, 0, 2):
            shifted = positions + np.array([down, right], np.float32)[:, None, None]
            nir = sample(ground.reflectance[3], shifted, cell=1)
            match[down, right] = np.corrcoef(nir[clear], seen.image[3][clear])[0, 1]
    assert max(match, key=match.get) == (0, 0)
    assert match[0, 0] > 0.7
    assert len(seen.truth) > 0


def test_a_scene_is_not_written_over_another(files):
    with pytest.raises(OutputExistsError, match="Expected no scene 20240721_202145_0015"):
        write_scene(SPEC, files.image.parent)


def test_the_description_makes_the_scene_again(files):
    fields = json.loads(files.description.read_text())
    assert SceneSpec(**{**fields, "date": dt.date.fromisoformat(fields["date"])}) == SPEC
