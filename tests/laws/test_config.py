"""Law 7 for configs: what is written comes back equal, and so does what it means."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rtsx.config import CubeConfig
from rtsx.config.yaml import parse_yaml

NAMES = ("blue", "green", "red", "nir", "dem", "tc_wetness")
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
PATH = TEXT.map(lambda text: "/" + text.replace("{tcvis_window}", ""))
# Without a user or a query, which may hold a key and are not written.
HOST = TEXT.filter(lambda text: not set(text) & set("@?#"))
NUMBER = st.floats(-1e6, 1e6, allow_nan=False)
RESAMPLING = st.sampled_from(["nearest", "bilinear", "cubic", "average"])


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


LAYER = some(
    asset=TEXT, band=st.integers(1, 12) | TEXT, resampling=RESAMPLING, scale_factor=NUMBER, add_offset=NUMBER,
    nodata=NUMBER, dtype=st.just("float32"), units=TEXT, long_name=TEXT,
)  # fmt: skip
QUALITY = st.one_of(
    st.fixed_dictionaries({"rule": st.sampled_from(["tss-v1", "darts-v2", "sentinel2-scl", "landsat-qa-pixel"])}),
    st.just({"rule": {"good": "clear and confidence >= 80", "low": "light_haze"}, "data": "udm2"}),
)
QUALITY = st.builds(
    lambda rule, others: {**rule, **others},
    QUALITY,
    some(asset=TEXT, name=TEXT, bands=st.lists(st.integers(1, 8), max_size=3), keep_low=st.booleans(),
         erode_m=st.floats(0, 500)),
)  # fmt: skip
DAYS = st.sampled_from(
    [{"start": "2023-07-01", "end": "2024-08-31", "months": [7, 8]}, {"years": 2024}, {"years": [2019, 2022]}]
)
IMAGES = st.one_of(
    st.fixed_dictionaries({"stac": st.builds(
        lambda url, others: {"url": f"https://{url}", **others}, HOST,
        st.fixed_dictionaries({"collections": st.lists(TEXT, max_size=2)}, optional={
            "max_cloud_cover": st.floats(0, 100), "ids": st.lists(TEXT, max_size=2), "sign": st.just("planetary-computer"),
            "query": st.just({"platform": {"eq": "a"}}), "access": some(retries=st.integers(0, 9)),
        }))}),
    st.fixed_dictionaries({"catalog": st.fixed_dictionaries({"path": PATH}, optional={"prefer_local": st.booleans()})}),
    st.fixed_dictionaries({"items": PATH}),
    st.fixed_dictionaries({"zarr": PATH}),
    st.fixed_dictionaries({"files": st.dictionaries(TEXT, PATH, min_size=1, max_size=2)}),
)  # fmt: skip


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    cut = draw(st.integers(0, len(names) - 1))
    sources = {}
    for number, layers in enumerate(part for part in (names[:cut], names[cut:]) if part):
        source = draw(IMAGES) | draw(
            some(asset=TEXT, resampling=RESAMPLING, quality=QUALITY, period=DAYS | st.just("any"),
                 composite=st.sampled_from(["first", "best", "median", "mean"]), required=st.booleans(),
                 unreadable=st.sampled_from(["error", "gap"]))
        )  # fmt: skip
        source["layers"] = {name: draw(LAYER) for name in layers}
        sources[f"{draw(TEXT)}{number}"] = source
    config = draw(
        some(grid=some(resolution=st.floats(0.5, 100), cell_size=st.integers(1, 9999),
                       origin=st.tuples(NUMBER, NUMBER)),
             region=st.sampled_from([{"bbox": [-139.3, 69.5, -138.9, 69.65]}, {"bbox": [170, 60, -170, 61]},
                                     {"wkt": "POLYGON ((0.1 70, 1.3 70, 1 71.123456789012, 0.1 70))"}]),
             period=DAYS, preset=st.sampled_from(["tss-v1", "darts-v2"]), chunk=st.integers(1, 4096),
             layers=st.just(sorted(names)))
    )  # fmt: skip
    return {**config, "sources": sources}


@settings(max_examples=30)
@given(configs())
def test_config_and_recipe_come_back_from_text_equal(values: dict[str, Any]) -> None:
    config = CubeConfig.model_validate(values)
    assert read(config.to_yaml()) == config
    resolved = config.resolved()
    assert read(resolved.to_yaml()) == resolved
    recipe = config.recipe()
    assert resolved.recipe() == recipe
    assert CubeConfig.from_recipe(recipe).recipe() == recipe
    assert read(CubeConfig.from_recipe(recipe).to_yaml()).recipe() == recipe


def read(text: str) -> CubeConfig:
    document = parse_yaml(text, name="law", environment={})
    assert document.complaints == ()
    return CubeConfig.model_validate(document.values)
