"""`import rtsx` is cheap: each measurement runs in an interpreter of its own."""

import subprocess
import sys

import pytest

HEAVY = (
    "dask",
    "distributed",
    "geopandas",
    "onnxruntime",
    "rasterio",
    "segmentation_models_pytorch",
    "torch",
    "xarray",
)


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_import_loads_no_heavy_library() -> None:
    loaded = run(f"import rtsx, sys; print([name for name in {HEAVY!r} if name in sys.modules])")
    assert loaded == "[]"


def test_predicting_waits_for_neither_architectures_nor_compilers() -> None:
    unwanted = ("segmentation_models_pytorch", "torch._dynamo", "distributed", "geopandas")
    loaded = run(
        f"from rtsx.inference import predict_cube; import sys; print([n for n in {unwanted} if n in sys.modules])"
    )
    assert loaded == "[]"


def test_ordering_scenes_waits_for_nothing_that_reads_them() -> None:
    unwanted = ("rasterio", "xarray", "pandas", "numba", "zarr", "pyarrow")
    names = "collect_quads, fetch_order, fetch_quads, list_quads, order_quads, order_status, quad_ledger, select_scenes, submit_order"
    code = f"import rtsx.config.order; from rtsx.ordering import {names}; import sys; "
    assert run(f"{code}print([n for n in {unwanted} if n in sys.modules])") == "[]"
    code = "from rtsx.ordering import StacApi, StaticCatalog; import sys; "
    unwanted = ("rasterio", "xarray", "numba", "zarr")  # but pyarrow and pandas, which read tables of items
    assert run(f"{code}print([n for n in {unwanted} if n in sys.modules])") == "[]"


def test_a_lazy_name_is_the_one_its_module_defines() -> None:
    import rtsx
    from rtsx.tiling import TilePlan

    assert rtsx.TilePlan is TilePlan


def test_every_public_name_is_listed_before_it_is_loaded() -> None:
    listed = run("import rtsx; print(set(rtsx.__all__) <= set(dir(rtsx)))")
    assert listed == "True"


def test_an_unknown_name_lists_the_known_ones() -> None:
    import rtsx

    with pytest.raises(AttributeError, match=r"no attribute 'predict_cubes'; its public names are .*predict_cube"):
        _ = rtsx.predict_cubes
