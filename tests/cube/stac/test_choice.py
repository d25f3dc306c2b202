"""Which asset, which bands."""

from typing import Any

import pytest

from rtsx.cube.images import Wanted
from rtsx.cube.stac.assets import choose
from rtsx.errors import CubeError

EIGHT = ("Coastal Blue", "Blue", "Green I", "Green", "Yellow", "Red", "Red Edge", "Near-Infrared")


def eo(*names: str, common: tuple[str | None, ...] = ()) -> dict[str, Any]:
    commons = common or (None,) * len(names)
    return {
        "href": "x.tif",
        "eo:bands": [{"name": n} | ({"common_name": c} if c else {}) for n, c in zip(names, commons, strict=True)],
    }


def numbers(assets: dict[str, Any], wanted: Wanted) -> tuple[str, tuple[int, ...] | None]:
    choice = choose({"id": "a", "assets": assets}, wanted)
    return choice.asset, None if choice.bands is None else tuple(band.number for band in choice.bands)


def test_the_asset_by_its_key_in_any_spelling() -> None:
    assets = {"SCL": eo("SCL"), "ortho_udm2": eo(*(f"B{n}" for n in range(1, 9)))}
    assert numbers(assets, Wanted(name="scl", asset="SCL")) == ("SCL", (1,))
    assert numbers(assets, Wanted(name="scl", asset="scl")) == ("SCL", (1,))
    assert numbers(assets, Wanted(name="udm2")) == ("ortho_udm2", tuple(range(1, 9)))
    assert numbers(assets, Wanted(name="x", asset="udm2", bands=(1, 8))) == ("ortho_udm2", (1, 8))


def test_the_asset_by_its_planet_type() -> None:
    assets = {"2022_3B_SR_tif": eo(*EIGHT) | {"pl:asset_type": "ortho_analytic_8b_sr"}}
    for name in ("ortho_analytic_8b_sr", "analytic_8b_sr"):
        assert numbers(assets, Wanted(name="nir", asset=name, bands=("Near-Infrared",))) == ("2022_3B_SR_tif", (8,))
    assert numbers(assets, Wanted(name="green_i")) == ("2022_3B_SR_tif", (3,))
    assert numbers(assets, Wanted(name="rgb", bands=("Red", "Green", "Blue"))) == ("2022_3B_SR_tif", (6, 4, 2))


def test_an_exact_name_goes_before_a_common_name_and_that_before_another_spelling() -> None:
    assets = {
        "spelled": eo("Red"),
        "common": eo("B4", common=("red",)),
        "exact": eo("red"),
    }
    assert numbers(assets, Wanted(name="red"))[0] == "exact"
    del assets["exact"]
    assert numbers(assets, Wanted(name="red"))[0] == "common"
    del assets["common"]
    assert numbers(assets, Wanted(name="red"))[0] == "spelled"


@pytest.mark.parametrize(
    ("band", "wish"),
    [
        (("Near Infrared", None), "near_infrared"),
        (("Near-Infrared", None), "nir"),
        (("B08", "nir"), "Near Infrared"),
        (("Blue", None), "blue"),
        (("blue", None), "Blue"),
        (("Coastal Blue", None), "coastal"),
    ],
)
def test_names_in_any_spelling(band: tuple[str, str | None], wish: str) -> None:
    assets = {"all": eo("B8A", band[0], "Green I", common=("nir08", band[1], None))}
    for wanted in (Wanted(name=wish), Wanted(name=wish, asset="all"), Wanted(name="x", asset="all", bands=(wish,))):
        assert numbers(assets, wanted) == ("all", (2,))


def test_all_bands_only_where_none_has_the_name() -> None:
    assets = {"all": eo("B05", "B06", "SCL", common=("rededge", "rededge", None))}
    assert numbers(assets, Wanted(name="scl", asset="all")) == ("all", (3,))
    assert numbers(assets, Wanted(name="clouds", asset="all")) == ("all", (1, 2, 3))
    for wanted in (Wanted(name="rededge", asset="all"), Wanted(name="rededge")):
        with pytest.raises(CubeError, match=r"has bands \[1, 2\] called 'rededge'; give a number"):
            numbers(assets, wanted)


def test_pictures_never_answer_for_a_band() -> None:
    assets = {"visual": eo("B04", "B03", common=("red", "green")), "pic": eo("red") | {"roles": ["overview"]}}
    with pytest.raises(
        CubeError, match=r"Item a has no band 'red'\. Its assets and bands are: visual \(B04 red, B03 green\)"
    ):
        numbers(assets, Wanted(name="red"))
    assert numbers(assets, Wanted(name="red", asset="visual")) == ("visual", (1,))


def test_metadata_never_answers_for_a_band() -> None:
    assets = {"red": {"href": "red.json"}, "B4": eo("B4", common=("red",))}
    assert numbers(assets, Wanted(name="red"))[0] == "B4"


def test_the_finest_pixels_then_the_cloud_optimised_file() -> None:
    coarse, fine = eo("B02") | {"proj:transform": [20, 0, 0, 0, -20, 0]}, eo("B02") | {"gsd": 10}
    assert numbers({"blue_20m": coarse, "blue_10m": fine}, Wanted(name="B02"))[0] == "blue_10m"
    cog = fine | {"type": "image/tiff; application=geotiff; profile=cloud-optimized"}
    assert numbers({"jp2": fine | {"type": "image/jp2"}, "cog": cog}, Wanted(name="B02"))[0] == "cog"


def test_two_products_are_an_error_instead_of_a_guess() -> None:
    assets = {"analytic": eo("Red"), "analytic_sr": eo("Red")}
    with pytest.raises(CubeError, match=r"in several assets: \['analytic', 'analytic_sr'\].*name one with asset="):
        numbers(assets, Wanted(name="red"))


def test_what_is_missing_is_named_with_what_is_there() -> None:
    assets = {"sr": eo("Red", "Green")}
    with pytest.raises(CubeError, match=r"no asset 'analytic'\. Its assets and bands are: sr \(Red, Green\)"):
        numbers(assets, Wanted(name="red", asset="analytic"))
    with pytest.raises(CubeError, match=r"no band 3 in asset 'sr', which has 2"):
        numbers(assets, Wanted(name="red", asset="sr", bands=(3,)))
    with pytest.raises(CubeError, match=r"no band 'nir' in asset 'sr'"):
        numbers(assets, Wanted(name="nir", asset="sr", bands=("nir",)))
    with pytest.raises(CubeError, match=r"no asset 'thing' to take bands \[1\] of"):
        numbers(assets, Wanted(name="thing", bands=(1,)))
    with pytest.raises(CubeError, match=r"Its assets and bands are: none"):
        numbers({}, Wanted(name="red"))


def test_names_that_fit_twice_are_an_error() -> None:
    edges = eo("B05", "B06", common=("rededge", "rededge"))
    with pytest.raises(CubeError, match=r"has bands \[1, 2\] called 'rededge'; give a number"):
        numbers({"all": edges}, Wanted(name="edge", asset="all", bands=("rededge",)))
    with pytest.raises(CubeError, match=r"several assets that go by 'scl': \['SCL', 'Scl'\]"):
        numbers({"SCL": eo("a"), "Scl": eo("b")}, Wanted(name="scl"))


def test_what_an_item_does_not_list_is_left_to_the_file() -> None:
    bare, unnamed = {"href": "sr.tif"}, {"href": "sr.tif", "raster:bands": [{}, {}]}
    assert numbers({"sr": bare}, Wanted(name="red", asset="sr", bands=("red",))) == ("sr", None)
    assert numbers({"sr": unnamed}, Wanted(name="red", asset="sr")) == ("sr", None)
    assert numbers({"sr": unnamed}, Wanted(name="red", asset="sr", bands=(2,))) == ("sr", (2,))
