"""Mask expressions: against a plain Python reading of the same text, and everything that they refuse."""

import pickle
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from rtsx.cube import apply_mask, open_source
from rtsx.cube.build import build_store
from rtsx.cube.file_images import FileImages
from rtsx.cube.images import BandRequest, ImageSource
from rtsx.cube.mask_rules import (
    MASK_RULES,
    VOCABULARIES,
    BandTerm,
    MaskRule,
    band_names,
    mask_rule,
    parse_condition,
    quality_level,
)
from rtsx.cube.native import with_native_images
from rtsx.cube.rasterio import read_header
from rtsx.cube.recipe import CubeRecipe, LayerRecipe, QualityRecipe, SourceRecipe
from rtsx.cube.stac import StacItems
from rtsx.errors import CubeError, LayerValuesWarning
from rtsx.grid import Grid

UDM2 = band_names("udm2")
QA = band_names("qa_pixel")
NAMES = list(UDM2.terms)


def atoms() -> st.SearchStrategy[str]:
    name = st.sampled_from(NAMES)
    number = st.integers(-2, 300)
    sign = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
    return st.one_of(
        name,
        st.builds("bit({}, {})".format, name, st.integers(0, 7)),
        st.builds("{} {} {}".format, name, sign, number),
        st.builds("{} {} {}".format, number, sign, name),
        st.builds("{} {} {}".format, name, sign, name),
        st.builds("{} <= {} < {}".format, number, name, number),
        st.builds("{} {} {}".format, name, st.sampled_from(["in", "not in"]), st.lists(number, max_size=3)),
    )


def expressions() -> st.SearchStrategy[str]:
    return st.recursive(
        atoms(),
        lambda inner: st.one_of(
            st.builds("not {}".format, inner.map("({})".format)),
            st.builds("({}) and ({})".format, inner, inner),
            st.builds("({}) or ({})".format, inner, inner),
            st.builds("{} or {} and not {}".format, atoms(), atoms(), atoms()),
        ),
        max_leaves=8,
    )


@given(expressions(), st.integers(0, 2**32 - 1))
def test_an_expression_means_what_python_would_read(text: str, seed: int) -> None:
    data = np.random.default_rng(seed).choice(np.array([0, 1, 2, 80, 255], np.uint8), (8, 3, 4))
    got = parse_condition(text, UDM2).of(data)
    assert got.dtype == bool
    for row, column in np.ndindex(3, 4):
        pixel = dict(zip(NAMES, map(int, data[:, row, column]), strict=True))
        meant = eval(text, {"bit": lambda value, n: value >> n & 1}, pixel)
        assert got[row, column] == bool(meant)


def test_names_of_classes_bits_and_confidences() -> None:
    scl = np.arange(12, dtype=np.uint8).reshape(1, 1, 12)
    text = "cloud_shadow or scl in (8, 9) or snow == 1"
    assert np.flatnonzero(parse_condition(text, band_names("scl")).of(scl)).tolist() == [3, 8, 9, 11]
    qa = np.array([1, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5, 1 << 6, 1 << 7, 2 << 8, 3 << 8, 1 << 14], np.uint16)
    for bit, name in enumerate(["fill", "dilated_cloud", "cirrus", "cloud", "cloud_shadow", "snow", "clear", "water"]):
        for text in (name, f"bit({bit})", f"bit(qa_pixel, {bit})"):
            assert np.flatnonzero(parse_condition(text, QA).of(qa[None, None])).tolist() == [bit]
    assert np.flatnonzero(parse_condition("cloud_confidence >= 2", QA).of(qa[None, None])).tolist() == [8, 9]
    assert np.flatnonzero(parse_condition("cirrus_confidence", QA).of(qa[None, None])).tolist() == [10]


def test_bits_of_signed_numbers_and_of_none() -> None:
    data = np.array([[[-32768, 1]]], np.int16)
    assert parse_condition("bit(15)", QA).of(data).tolist() == [[True, False]]
    with pytest.raises(CubeError, match="uint8 has bits 0 to 7; a rule reads bit 9"):
        parse_condition("cloud_confidence == 3", QA).of(np.zeros((1, 2, 2), np.uint8))
    with pytest.raises(CubeError, match="Bits are read from whole numbers; this quality data is float32"):
        parse_condition("bit(1)", QA).of(np.zeros((1, 2, 2), np.float32))


def test_bands_that_the_caller_names() -> None:
    vocabulary = band_names(["haze", "ice"])
    data = np.array([[[0.2, 0.9]], [[0, 1]]], np.float32)
    assert parse_condition("haze < 0.5 and not ice", vocabulary).of(data).tolist() == [[True, False]]
    with pytest.raises(
        CubeError, match=r"Known quality data are \['fmask', 'qa_pixel', 'scl', 'sky', 'udm2'\]; got 'udm3'"
    ):
        band_names("udm3")
    for names in ([], ["a", "a"], ["two words"], ["not"]):
        with pytest.raises(CubeError, match="one different name each"):
            band_names(names)


def test_text_may_have_lines_and_spaces() -> None:
    assert parse_condition("  cloud\n  or\n  shadow\n", UDM2) == parse_condition("cloud or shadow", UDM2)


def test_a_condition_is_a_value() -> None:
    condition = parse_condition("not (bit(unusable, 2) or 20 < confidence < 80 or cloud in [1])", UDM2)
    assert pickle.loads(pickle.dumps(condition)) == condition
    assert hash(condition) == hash(parse_condition("not (bit(unusable,2) or 20<confidence<80 or cloud in (1,))", UDM2))
    assert {len(vocabulary.terms) for vocabulary in VOCABULARIES.values()} == {6, 8, 13}
    assert UDM2.terms["cloud"] == BandTerm(5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cloud or shdow", r"column 10: unknown name 'shdow', did you mean 'shadow'\?.*\['clear', 'snow', 'shadow'"),
        ("cloud | shadow", r"column 1: 'cloud \| shadow' is no condition.*and, or, not"),
        ("cloud & shadow", "no condition"),
        ("cloud + 1 > 2", r"'cloud \+ 1' is no number"),
        ("1", "column 1: '1' is no condition"),
        ("cloud or True", "column 10: 'True' is no condition"),
        ("cloud == True", "'True' is no number"),
        ("cloud == 'yes'", "is no number"),
        ("1 < 2", "compares no data"),
        ("cloud is 1", "write =="),
        ("cloud in 3", "'in' is followed by a list of numbers, got '3'"),
        ("cloud in [snow]", "'snow' is no number"),
        ("(cloud or snow) == 1", "is no number"),
        ("bit(3)", r"8 bands, so write bit\(name, number\)"),
        ("bit(cloud, 64)", "column 12: bits are numbered from 0 to 63, got 64"),
        ("bit(cloud, -1)", "got -1"),
        ("bit(cloud, 1.5)", r"got 1\.5"),
        ("bit(cloud, n=1)", r"none of bit\(number\)"),
        ("bit()", r"none of bit\(number\)"),
        ("__import__('os')", r"none of bit\(number\)"),
        ("cloud.__class__", "is no condition"),
        ("cloud[0]", "is no condition"),
        ("lambda: cloud", "is no condition"),
        ("[cloud for cloud in snow]", "is no condition"),
        ("(cloud := 1)", "is no condition"),
        ("f'{cloud}'", "is no condition"),
        ("cloud if snow else clear", "is no condition"),
        ("cloud or", "column 9: "),
        ("cloud and and snow", "column 11: invalid syntax"),
        ("wölke or clöud", "column 1: unknown name 'wölke'"),
        ("cloud or clöud", "column 10: unknown name 'clöud', did you mean 'cloud'"),
        ("not snow or (not wölke and clöud)", "column 18: unknown name 'wölke'"),
        ("", "1 to 1000 characters; got 0"),
        ("cloud or " * 200 + "cloud", "1 to 1000 characters; got 1805"),
        ("(" * 300 + "cloud" + ")" * 300, "Mask expression"),
        ("cloud\0", "Mask expression"),
        ("cloud; snow", "Mask expression"),
    ],
)
def test_anything_else_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(CubeError, match=said):
        parse_condition(text, UDM2)


def test_the_column_counts_characters() -> None:
    with pytest.raises(CubeError, match="column 9: unknown name 'shdow'"):
        parse_condition("haÿe or shdow", band_names(["haÿe"]))


def test_deep_nesting_parses_or_is_refused_but_never_crashes() -> None:
    data = np.ones((8, 1, 1), np.uint8)
    assert parse_condition("not " * 200 + "cloud", UDM2).of(data).item()
    with pytest.raises(CubeError, match="no band"):
        parse_condition("bit(cloud, 3)", band_names("qa_pixel"))


@given(st.integers(0, 2**16 - 1))
def test_landsat_bits_pixel_by_pixel(qa: int) -> None:
    low = any(qa >> bit & 1 for bit in (1, 2, 3, 4, 5))
    expected = 0 if qa & 1 else 1 if low else 2
    assert quality_level(np.array([[[qa]]], np.uint16), "landsat-qa-pixel").item() == expected


@given(st.lists(st.sampled_from([0, 1, 40, 97]), min_size=8, max_size=8))
def test_the_lowest_level_wins_and_the_rest_is_what_the_rule_leaves(bands: list[int]) -> None:
    clear, snow, shadow, _light, _heavy, cloud, confidence, unusable = bands
    udm2 = np.array(bands, np.uint8).reshape(8, 1, 1)
    invalid, low, good = {"invalid": "unusable"}, {"low": "cloud or shadow or snow"}, {"good": "clear"}

    def level(rule: str | dict[str, str]) -> int:
        return int(mask_rule(rule, data="udm2").quality(udm2).item())

    is_low = cloud or shadow or snow
    assert level(invalid | low | good) == (0 if unusable else 1 if is_low else 2 if clear else 0)
    assert level(invalid | low) == (0 if unusable else 1 if is_low else 2)
    assert level(low) == (1 if is_low else 2)
    assert level(invalid) == (0 if unusable else 2)
    assert level("clear and confidence >= 80") == (2 if clear and confidence >= 80 else 0)
    assert level({"low": "clear", "good": "cloud"}) == (1 if clear else 2 if cloud else 0)


def test_rules_are_values() -> None:
    for rule in (*MASK_RULES.values(), mask_rule({"low": "cloud"}, data="udm2")):
        assert isinstance(rule, MaskRule)
        assert pickle.loads(pickle.dumps(rule)) == rule
        assert hash(rule)
    assert mask_rule("darts-v2", data=None) is mask_rule("darts-v2", data="udm2") is MASK_RULES["darts-v2"]
    rule = mask_rule({"good": "clear", "invalid": "unusable\n  or cloud"}, data="udm2")
    assert (rule.name, rule.bands) == ("invalid: unusable or cloud; good: clear", 8)


def test_levels_come_as_one_byte_in_an_array_of_their_own() -> None:
    scl = np.full((1, 3, 4), 5, np.uint8)
    for rule in ("sentinel2-scl", mask_rule("vegetation or not_vegetated", data="scl")):
        levels = quality_level(scl, rule)
        assert levels.dtype == np.uint8
        assert (levels == 2).all()
        levels[:] = 0
        assert (scl == 5).all()


def test_a_rule_of_expressions_masks_a_cube(random_cube: Callable[..., xr.Dataset]) -> None:
    cube = random_cube().drop_vars("valid")
    qa = np.random.default_rng(3).integers(0, 2**16, (230, 301)).astype(np.uint16)
    data = xr.DataArray(qa, dims=("y", "x"))
    rule = mask_rule({"invalid": "fill", "low": "bit(3) or snow_confidence == 3"}, data="qa_pixel")
    low = (qa & 8 != 0) | (qa >> 12 & 3 == 3)
    masked = apply_mask(cube, data, rule=rule)["valid"]
    np.testing.assert_array_equal(masked.values, (qa & 1 == 0) & ~low)
    np.testing.assert_array_equal(apply_mask(cube, data, rule=rule, keep_low=True)["valid"].values, qa & 1 == 0)
    assert masked.attrs["mask_rule"] == "invalid: fill; low: bit(3) or snow_confidence == 3"


def test_what_is_no_rule_is_told() -> None:
    with pytest.raises(
        CubeError, match=r"Known mask rules are \['darts-v2', .*got 'darts-v1'. Did you mean 'darts-v2'"
    ):
        mask_rule("darts-v1", data=None)
    with pytest.raises(CubeError, match=r"expressions for some of \['invalid', 'low', 'good'\]; got \['bad'\]"):
        mask_rule({"bad": "cloud"}, data="udm2")
    with pytest.raises(CubeError, match=r"for some of .* got \[\]"):
        mask_rule({}, data="udm2")
    with pytest.raises(CubeError, match=r"'low' is 1\. Put it into quotes"):
        mask_rule({"low": 1}, data="udm2")  # type: ignore[dict-item]
    with pytest.raises(CubeError, match="column 1: unknown name 'clod', did you mean 'cloud'"):
        mask_rule("clod", data="udm2")
    with pytest.raises(CubeError, match=r"'good: clear' reads data \(band, y, x\) with 8 bands; got shape \(1, 2, 2\)"):
        quality_level(np.zeros((1, 2, 2), np.uint8), mask_rule("clear", data="udm2"))


PLANETS = ("Clear map", "Snow mask", "Shadow", "haze_light", "HeavyHaze", "CLOUD", "confidence", "Unusable data mask")
OTHERS = (7, 0, 6, 1, 5, 4, 2, 3)
"""Where Planet's bands come from, of a file in another order."""


def udm2() -> np.ndarray:
    """Quality data in which each band is set somewhere alone."""
    random = np.random.default_rng(4)
    return (random.integers(0, 8, (1, 230, 301)) == np.arange(8)[:, None, None]).astype(np.uint8)


def _in_file(pixels: np.ndarray, names: Sequence[str | None], write_tif: Callable[..., Path]) -> Any:
    return write_tif("udm2.tif", pixels, descriptions=tuple(name or "" for name in names))


def _by_coordinate(pixels: np.ndarray, names: Sequence[str | None], write_tif: Callable[..., Path]) -> Any:
    coords = {} if None in names else {"band": list(names)}
    return xr.DataArray(pixels, dims=("band", "y", "x"), coords=coords)


def _by_long_name(pixels: np.ndarray, names: Sequence[str | None], write_tif: Callable[..., Path]) -> Any:
    attrs = {} if None in names else {"long_name": tuple(names)}
    return xr.DataArray(pixels, dims=("band", "y", "x"), coords={"band": np.arange(1, 9)}, attrs=attrs)


@pytest.mark.parametrize("lay", [_in_file, _by_coordinate, _by_long_name])
@pytest.mark.parametrize("rule", ["tss-v1", "darts-v2"])
def test_bands_of_quality_data_are_found_by_name_in_any_order(
    rule: str,
    lay: Callable[..., Any],
    random_cube: Callable[..., xr.Dataset],
    write_tif: Callable[..., Path],
) -> None:
    cube, order = random_cube().drop_vars("valid"), list(OTHERS)
    expected = quality_level(udm2(), rule) == 2
    assert 0.05 < expected.mean() < 0.95
    for pixels, names in (
        (udm2(), PLANETS),
        (udm2()[order], [PLANETS[place] for place in order]),
        (udm2(), [None] * 8),
        (udm2(), [f"B{number}" for number in range(1, 9)]),
        (udm2(), [*PLANETS[:5], "veil", *PLANETS[6:]]),
    ):
        found = apply_mask(cube, lay(pixels, names, write_tif), rule=rule)["valid"]
        np.testing.assert_array_equal(found.values, expected, err_msg=str(names))
    half_known = ["veil" if name == "CLOUD" else name for name in (PLANETS[place] for place in order)]
    with pytest.raises(
        CubeError, match=r"reads the bands \['clear', .*described as \['Unusable.* not all by these names"
    ):
        apply_mask(cube, lay(udm2()[order], half_known, write_tif), rule=rule)


def test_a_source_finds_bands_of_quality_data_by_name(write_tif: Callable[..., Path]) -> None:
    order = list(OTHERS)
    names = [PLANETS[place] for place in order]
    scene = write_tif("a.tif", np.ones((1, 230, 301), np.uint16))
    mask = write_tif("udm2.tif", udm2()[order], descriptions=tuple(names))
    bare = {"href": str(mask)}
    named = bare | {"eo:bands": [{"name": name} for name in names]}
    nameless = bare | {"raster:bands": [{"data_type": "uint8"}] * 8}
    item = {"type": "Feature", "id": "a", "collection": "c", "properties": {"datetime": "2024-07-01T10:00:00Z"}}
    sources: list[ImageSource] = [FileImages(assets={"image": (str(scene),), "udm2": (str(mask),)})]
    for asset in (bare, named, nameless):
        # As the item of that name has it, whatever the file says, else as the file says.
        assets = {"image": {"href": str(scene)}, "udm2": asset}
        sources.append(StacItems([item | {"assets": assets}]))
    quality = QualityRecipe(wanted=BandRequest(name="udm2", asset="udm2"), rule=MASK_RULES["darts-v2"])
    (layer,) = (LayerRecipe(wanted=BandRequest(name="red", asset="image", bands=(1,))),)
    back = tuple(order.index(place) + 1 for place in range(8))
    for images in sources:
        source = SourceRecipe(name="s", images=images, layers=(layer,), quality=quality)
        (image,) = images.find(shapely.box(-180, -90, 180, 90), None, source.wanted)
        assert image.bands["udm2"].bands == back
        by_number = replace(quality, wanted=replace(quality.wanted, bands=(*range(1, 9),)))
        (image,) = images.find(shapely.box(-180, -90, 180, 90), None, replace(source, quality=by_number).wanted)
        assert image.bands["udm2"].bands == tuple(range(1, 9))


NODATA: list[tuple[Any, str, float | None, bool]] = [
    ({"invalid": "q == 1"}, "q", None, True),
    ({"invalid": "q == 1"}, "q", 7, False),
    ({"invalid": "q == 1", "low": "q == 2"}, "q", 7, False),
    ({"low": "q == 2"}, "q", 7, False),
    ({"low": "q in [2, 7]"}, "q", 7, True),  # with keep_low: the rule has a word for it
    ({"low": "q == 2 or bit(q, 1)"}, "q", 7, False),  # bit 1 of 7 happens to be set
    ({"low": "q > 6"}, "q", 7, False),
    ({"good": "q != 1"}, "q", 7, False),
    ({"good": "bit(0)"}, "q", 7, False),
    ({"good": "q in [5, 7]"}, "q", 7, True),
    ("q != 1", "q", None, True),
    ({"low": "cloud_high_probability"}, "scl", 9, True),
    ("sentinel2-scl", "scl", 7, True),
    ("hls-fmask", "fmask", 7, True),
]


@pytest.mark.parametrize(("stated", "name", "nodata", "counts"), NODATA)
def test_nodata_of_quality_data_that_no_expression_names_is_not_good(
    stated: Any,
    name: str,
    nodata: float | None,
    counts: bool,
    random_cube: Callable[..., xr.Dataset],
    write_tif: Callable[..., Path],
) -> None:
    cube = random_cube().drop_vars("valid")
    pixels = np.full((1, 230, 301), 5, np.uint8)
    pixels[:, :100] = nodata or 7
    rule = mask_rule(stated, data=[name] if name == "q" else name)
    path = write_tif("q.tif", pixels, nodata=nodata)
    array = xr.DataArray(pixels[0], dims=("y", "x"), attrs={} if nodata is None else {"_FillValue": nodata})
    for data in (path, array):
        valid = apply_mask(cube, data, rule=rule, keep_low=True)["valid"].values
        assert valid[100:].all()
        assert (valid[:100] == counts).all()
    scene = write_tif("a.tif", np.ones((1, 230, 301), np.uint16))
    source = SourceRecipe(
        name="s",
        images=FileImages(assets={"image": (str(scene),), "q": (str(path),)}),
        layers=(LayerRecipe(wanted=BandRequest(name="red", asset="image", bands=(1,)), resampling="nearest"),),
        quality=QualityRecipe(wanted=BandRequest(name="q", asset="q"), rule=rule, keep_low=True),
    )
    grid = Grid("EPSG:32649", 3, cell_size=64, origin=(711576.0, 94749.0))
    recipe = CubeRecipe(grid=grid, sources=(source,), region=None)
    valid = open_source(recipe, read_header(path).geobox)["valid"].values
    assert valid[100:].all()
    assert (valid[:100] == counts).all()


def test_nodata_of_flags_is_that_of_all_bands() -> None:
    rule = mask_rule({"invalid": "cloud"}, data=["cloud", "snow"])
    data = np.array([[[9, 9, 0]], [[0, 9, 9]]], np.uint8)
    assert rule.levels(data, nodata=9).tolist() == [[0, 0, 2]]  # the first two by the rule itself
    rule = mask_rule({"invalid": "cloud == 1"}, data=["cloud", "snow"])
    assert rule.levels(data, nodata=9).tolist() == [[2, 0, 2]]


def test_a_pixel_that_is_no_number_counts_under_no_rule() -> None:
    scl = np.array([[[4, np.nan, 8]]], np.float32)
    assert mask_rule("sentinel2-scl", data=None).levels(scl, nodata=None).tolist() == [[2, 0, 1]]


def _with_mask(path: Path, pixels: NDArray[np.uint8], seen: NDArray[np.bool_], kind: str) -> Path:
    count = len(pixels) + (kind == "alpha")
    place = {"crs": "EPSG:32649", "transform": Affine(3, 0, 711576.0, 0, -3, 94749.0)}
    size = {"height": seen.shape[0], "width": seen.shape[1], "count": count, "dtype": "uint8"}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=kind == "inside"),
        rasterio.open(path, "w", driver="GTiff", **size, **place, **({"nodata": 5} if kind == "alpha" else {})) as file,
    ):
        if kind == "alpha":  # before pixels, which may be flushed at any time, and GDAL then keeps it no more
            file.colorinterp = (*[ColorInterp.gray] * len(pixels), ColorInterp.alpha)
        file.write(pixels, list(range(1, len(pixels) + 1)))
        if kind == "alpha":
            file.write(np.where(seen, 255, 0).astype(np.uint8), count)
        else:
            file.write_mask(seen)
    return path


@pytest.mark.parametrize("kind", ["inside", "beside", "alpha"])
def test_what_a_mask_within_quality_data_leaves_out_is_invalid_at_every_door(
    kind: str, random_cube: Callable[..., xr.Dataset], write_tif: Callable[..., Path], tmp_path: Path
) -> None:
    cube = random_cube().drop_vars("valid")
    pixels, seen = np.full((1, 230, 301), 5, np.uint8), np.ones((230, 301), bool)
    seen[:100] = False
    path = _with_mask(tmp_path / "scl.tif", pixels, seen, kind)
    rule = mask_rule("sentinel2-scl", data=None)
    np.testing.assert_array_equal(apply_mask(cube, path, rule=rule)["valid"].values, seen)
    scene = write_tif("a.tif", np.ones((1, 230, 301), np.uint16), nodata=0)
    source = SourceRecipe(
        name="s",
        images=FileImages(assets={"image": (str(scene),), "scl": (str(path),)}),
        layers=(LayerRecipe(wanted=BandRequest(name="red", asset="image", bands=(1,)), resampling="nearest"),),
        quality=QualityRecipe(wanted=BandRequest(name="scl", asset="scl"), rule=rule),
    )
    grid = Grid("EPSG:32649", 3, cell_size=128, origin=(711576.0, 94749.0))
    recipe = CubeRecipe(grid=grid, sources=(source,), region=None)
    np.testing.assert_array_equal(open_source(recipe, read_header(path).geobox)["valid"].values, seen)
    build_store(recipe, tmp_path / "native.zarr", cell=grid[0, 0], layout="native")
    copied = open_source(with_native_images(recipe, str(tmp_path / "native.zarr")), grid[0, 0])["valid"].values
    np.testing.assert_array_equal(copied, open_source(recipe, grid[0, 0])["valid"].values)
    assert (copied.any(), copied.all()) == (True, False)


@pytest.mark.parametrize(
    ("stated", "is_told"),
    [({"invalid": "q == 1"}, True), ({"invalid": "q in [0, 1]"}, False), ({"good": "q != 1"}, False)],
)
def test_0_declared_missing_counts_as_the_rule_says_and_is_warned_of(
    stated: dict[str, str], is_told: bool, random_cube: Callable[..., xr.Dataset], write_tif: Callable[..., Path]
) -> None:
    cube, rule = random_cube().drop_vars("valid"), mask_rule(stated, data=["q"])
    path = write_tif("q.tif", np.zeros((1, 230, 301), np.uint8), nodata=0)
    told = pytest.warns(
        LayerValuesWarning, match=r"q\.tif declares nodata 0, .* counts as good\. .* by `q == 0` and `or`"
    )
    with told if is_told else nullcontext():
        valid = apply_mask(cube, path, rule=rule)["valid"]
    assert bool(valid.all()) == ("0" not in stated.get("invalid", ""))


@pytest.mark.parametrize(
    ("dtype", "message"), [("float32", "Bits are read from whole numbers"), ("uint8", "bits 0 to 7"), ("U1", "numbers")]
)
def test_quality_data_of_a_dtype_that_the_rule_cannot_read_is_refused_before_a_block_is_read(
    dtype: str, message: str, random_cube: Callable[..., xr.Dataset]
) -> None:
    cube = random_cube().drop_vars("valid")
    lazy = xr.DataArray(np.zeros((230, 301), dtype), dims=("y", "x")).chunk(100)
    with pytest.raises(CubeError, match=message):
        apply_mask(cube, lazy, rule=mask_rule({"invalid": "bit(9)"}, data=["q"]))


@pytest.mark.parametrize("door", ["files", "mask"])
def test_the_fourth_of_four_bands_of_quality_data_is_no_mask(
    door: str, random_cube: Callable[..., xr.Dataset], write_tif: Callable[..., Path], tmp_path: Path
) -> None:
    """GDAL marks it as alpha where nobody says otherwise."""
    pixels, place = (
        np.zeros((4, 230, 301), np.uint8),
        {"crs": "EPSG:32649", "transform": Affine(3, 0, 711576.0, 0, -3, 94749.0)},
    )
    pixels[1, :9] = 1
    path = tmp_path / "q.tif"
    with rasterio.open(path, "w", driver="GTiff", width=301, height=230, count=4, dtype="uint8", **place) as file:
        file.write(pixels)
    assert read_header(path).alpha == 4
    if door == "mask":
        rule = mask_rule({"invalid": "cloud == 1"}, data=["clear", "cloud", "shadow", "snow"])
        valid = apply_mask(random_cube().drop_vars("valid"), path, rule=rule)["valid"].values
        with pytest.raises(CubeError, match=r"reads 3 bands; .* has 4"):
            apply_mask(random_cube(), path, rule=mask_rule({"invalid": "b == 1"}, data=["a", "b", "c"]))
    else:
        scene = write_tif("a.tif", np.ones((1, 230, 301), np.uint16), nodata=0)
        band = BandRequest(name="q", asset="q", bands=(1, 2))
        rule = mask_rule({"invalid": "cloud == 1"}, data=["clear", "cloud"])
        source = SourceRecipe(
            name="s",
            images=FileImages(assets={"image": (str(scene),), "q": (str(path),)}),
            layers=(LayerRecipe(wanted=BandRequest(name="red", asset="image", bands=(1,)), resampling="nearest"),),
            quality=QualityRecipe(wanted=band, rule=rule),
        )
        grid = Grid("EPSG:32649", 3, cell_size=128, origin=(711576.0, 94749.0))
        cube = open_source(CubeRecipe(grid=grid, sources=(source,)), read_header(path).geobox)
        assert (cube["quality_s"].values[9:] == 2).all()
        assert (cube["quality_s"].values[:9] == 0).all()
        return
    np.testing.assert_array_equal(valid, pixels[1] == 0)
