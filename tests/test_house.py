"""The house stays one to find one's way in: one name for one thing, no crumbs of modules, imports at the top.

Each rule has a short list of exceptions with a reason; one that is no longer needed fails as well.
"""

import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

HOUSE = Path(__file__).parent.parent / "rtsx"
SMALL = 80

NAMES_OF_SEVERAL_THINGS = {
    "Scene": "users know both: rtsx.ordering.Scene is a candidate for an order, rtsx.synthetic.Scene one that was made",
    "view": "rtsx.view shows a map; in a synthetic scene it is what a sensor sees",
    "app": "Typer's word for the commands of a file",
}
SMALL_MODULES: dict[str, str] = {}
HEAVY = {
    "bokeh": "the extra `view`",
    "aiohttp": "comes with fsspec's http and dask-gateway alone",
    "cql2": "needed for conditions that are written as text",
    "dask_gateway": "the extra `gateway`",
    "dask": "0.2 s, which refusals do not wait for",
    "fsspec": "0.2 s, and of a local disk most commands only check a path",
    "distributed": "0.5 s, and not every run has a cluster",
    "geopandas": "0.6 s, which refusals do not wait for",
    "kornia": "the extra `train`",
    "matplotlib": "the extra `view`",
    "morecantile": "the extra `deliver`",
    "odc": "0.5 s, because it loads dask",
    "onnx": "the extra `onnx`",
    "onnxruntime": "the extra `onnx`",
    "onnxscript": "the extra `onnx`",
    "openvino": "the extra `openvino`",
    "pyarrow": "0.1 s, which plans and orders do not wait for",
    "segmentation_models_pytorch": "seconds, and networks of other libraries do not need it",
    "zarrs": "the extra `fast`",
    "torch": "seconds, which `import rtsx` and refusals do not wait for",
}
MODULES_OF_EXTRAS = {
    "rtsx.ordering.planet": "order",
    "rtsx.training.engine": "train",
    "rtsx.viewer.page": "view",
    "rtsx.viewer.table": "view",
    "rtsx.viewer.server": "view",
}
"""What is imported only where its extra is there; a message names the extra where it is not."""
OTHER_NAMES = {"PIL": "pillow", "odc": "odc-geo", "pydantic_core": "pydantic", "yaml": "pyyaml"}
"""Libraries that are imported by another name than they are installed by."""
INNER_IMPORTS = {
    ("rtsx.campaign.campaign", "rtsx.campaign.drift_check"): "xarray and dask, when a year is checked",
    ("rtsx.campaign.campaign", "rtsx.campaign.copying"): "zarr, when a campaign is copied",
    ("rtsx.campaign.campaign", "rtsx.campaign.estimate"): "torch, which whoever looks at a campaign does not need",
    ("rtsx.campaign.campaign", "rtsx.campaign.map"): "xarray and zarr, when the map is opened",
    ("rtsx.campaign.campaign", "rtsx.campaign.planning"): "torch, when a campaign is planned",
    ("rtsx.campaign.campaign", "rtsx.campaign.products"): "geopandas and dask, when products are made",
    ("rtsx.campaign.campaign", "rtsx.campaign.report"): "zarr, when the report is written",
    ("rtsx.campaign.campaign", "rtsx.campaign.run"): "torch and distributed, when a campaign runs",
    ("rtsx.campaign.campaign", "rtsx.campaign.work"): "torch and distributed, when a worker works",
    ("rtsx.campaign.campaign", "rtsx.campaign.fetch"): "xarray and dask, when inputs are fetched",
    ("rtsx.campaign.cell_input", "rtsx.inference.runner"): "torch, which whoever fetches inputs does not need",
    ("rtsx.campaign.campaign", "rtsx.cube"): "xarray and dask, when the cube is opened",
    ("rtsx.campaign.clusters", "rtsx.model.allocator"): "torch, which a client of other machines does not need",
    ("rtsx.campaign.records", "rtsx.inference.memory"): "torch, when a worker says what it computes with",
    ("rtsx.config.campaign", "rtsx.model"): "torch, when bundles are opened",
    ("rtsx.config.evaluate", "rtsx.evaluation"): "torch, when scenes are evaluated",
    ("rtsx.config.evaluate", "rtsx.inference"): "torch, when scenes are evaluated",
    ("rtsx.config.inputs", "rtsx.training.networks"): "torch, when a network is built",
    ("rtsx.config.order", "rtsx.ordering.planet"): "the extra `order`",
    ("rtsx.ordering.catalog", "rtsx.cube.rasterio"): "xarray and dask, when a raster has arrived",
    ("rtsx.ordering.delivery", "rtsx.cube.rasterio"): "xarray and dask, when a quad is opened",
    ("rtsx.ordering.download", "rtsx.cube.rasterio"): "xarray and dask, when a raster has arrived",
    ("rtsx.config.layers", "rtsx.inference.clouds"): "torch, when a model masks clouds",
    ("rtsx.config.place", "rtsx.cube.rasterio"): "rasterio, when a region is a file",
    ("rtsx.config.place", "rtsx.labels.io"): "geopandas, when a region is a file",
    ("rtsx.config.starter", "rtsx.config.training"): "0.3 s, which a cube to start from does not need",
    ("rtsx.config.training", "rtsx.evaluation"): "torch, when outlines are chosen by objects",
    ("rtsx.config.training", "rtsx.evaluation.folds"): "scipy, when a split divides scenes",
    ("rtsx.config.training", "rtsx.inference"): "torch, when outlines are chosen by objects",
    ("rtsx.config.training", "rtsx.training"): "torch, when a training begins",
    ("rtsx.config.training", "rtsx.training.augment"): "torch, when augmentations are checked",
    ("rtsx.config.training", "rtsx.training.run_folder"): "torch, when a training is finished",
    ("rtsx.cube.open", "rtsx.cube.load"): "compiles the warp, which files that share a grid do not need",
    ("rtsx.cube.stac.sources", "rtsx.cube.stac.images"): "xarray and rasterio, when images are read",
    ("rtsx.viewer.mapview", "rtsx.viewer.page"): "the extra `view`",
    ("rtsx.viewer.mapview", "rtsx.viewer.server"): "the extra `view`",
    ("rtsx.viewer.mapview", "rtsx.inference"): "torch, when somebody predicts",
    ("rtsx.config.viewing", "rtsx.model"): "torch, when bundles are opened",
    ("rtsx.viewer.pyramid", "rtsx.cube.load"): "compiles the warp, which stores do not need",
    ("rtsx.training.run_folder", "rtsx.training.networks"): "torch, when a network is described",
    ("rtsx.training.run", "rtsx.training.engine"): "the extra `train`",
}
"""Importing and imported module, beside the commands, which load what they do and nothing else."""
LIGHT_ROOMS = {"arguments", "errors", "names", "parsing", "redaction", "storage"}
"""What even a command imports at its top."""


@cache
def modules() -> dict[str, tuple[str, ast.Module]]:
    files = {path: path.read_text() for path in sorted(HOUSE.rglob("*.py"))}
    return {
        ".".join(path.relative_to(HOUSE.parent).with_suffix("").parts).removesuffix(".__init__"): (
            text,
            ast.parse(text),
        )
        for path, text in files.items()
    }


def is_package(name: str) -> bool:
    return (HOUSE.parent / name.replace(".", "/")).is_dir()


def defined(tree: ast.Module) -> set[str]:
    """Functions, classes and constants at the top of a module that have no underscore, or that it lists."""
    own: set[str] = set()
    listed: set[str] | None = None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            if names == ["__all__"] and node.value is not None:
                listed = set(ast.literal_eval(node.value))
            own.update(name for name in names if re.fullmatch(r"[A-Z][A-Z0-9_]+", name) or name in (listed or ()))
    return own & listed if listed is not None else {name for name in own if not name.startswith("_")}


def imported(tree: ast.AST) -> set[str]:
    """Modules that are imported anywhere below a node."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.update(
                name if (name := f"{node.module}.{alias.name}") in modules() else node.module for alias in node.names
            )
    return found


def test_a_public_name_means_one_thing() -> None:
    homes = defaultdict(set)
    for module, (_, tree) in modules().items():
        if not is_package(module):
            for name in defined(tree):
                homes[name].add(module)
    several = {name: sorted(found) for name, found in homes.items() if len(found) > 1}
    assert {name: found for name, found in several.items() if name not in NAMES_OF_SEVERAL_THINGS} == {}
    assert set(NAMES_OF_SEVERAL_THINGS) - set(several) == set()


def test_no_public_name_of_a_package_is_that_of_a_module() -> None:
    # A module that is imported takes its name, so the public one would be a module from then on.
    taken = {
        f"{package}.{name}" for package in modules() if is_package(package) for name in import_module(package).__all__
    } & set(modules())
    assert taken == set()


def test_a_small_module_has_more_than_one_importer() -> None:
    importers = defaultdict(set)
    for module, (_, tree) in modules().items():
        for name in imported(tree):
            importers[name].add(module)
    small = {
        module
        for module, (text, _) in modules().items()
        if text.count("\n") < SMALL and len(importers[module]) < 2 and not is_package(module)
    }
    assert small == set(SMALL_MODULES)


def test_only_modules_of_an_extra_need_more_than_what_is_always_installed() -> None:
    project = tomllib.loads((HOUSE.parent / "pyproject.toml").read_text())["project"]
    always = {re.split(r"[^\w-]", line, maxsplit=1)[0] for line in project["dependencies"]} | {"rtsx"}
    found = {
        module
        for module, (_, tree) in modules().items()
        for name in imported_at_top(tree.body)
        if name not in sys.stdlib_module_names and OTHER_NAMES.get(name, name).replace("_", "-") not in always
    }
    assert found == set(MODULES_OF_EXTRAS)


def imported_at_top(body: Sequence[ast.stmt]) -> set[str]:
    """Libraries that importing a module imports."""
    found: set[str] = set()
    for node in body:
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
        elif isinstance(node, ast.Try | ast.With) or (isinstance(node, ast.If) and not isinstance(node.test, ast.Name)):
            found |= imported_at_top([inner for inner in ast.iter_child_nodes(node) if isinstance(inner, ast.stmt)])
    return found


def test_only_heavy_libraries_are_imported_by_functions() -> None:
    libraries: set[str] = set()
    pairs: set[tuple[str, str]] = set()
    for module, (_, tree) in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for name in imported(node):
                    top, _, below = name.partition(".")
                    if top in HEAVY:
                        libraries.add(top)
                    elif not (module.startswith("rtsx.cli.") and below and below.split(".")[0] not in LIGHT_ROOMS):
                        pairs.add((module, name))
    assert pairs == set(INNER_IMPORTS)
    assert set(HEAVY) - libraries == set()
    assert not set(HEAVY) & sys.stdlib_module_names


ROOT = HOUSE.parent
MAP = (ROOT / "docs" / "design" / "000-map.md").read_text()


def test_every_room_is_on_the_map_in_its_row() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    rows = [{room.strip() for room in layer.split("|")} for layer in contract["layers"]]
    shown: dict[int, set[str]] = defaultdict(set)
    for row, rooms in re.findall(r"^\| (\d+) \| (`rtsx/.*?) \|", MAP, re.MULTILINE):
        shown[int(row) - 1].update(re.findall(r"`rtsx/(\w+)(?:\.py)?`", rooms))
    assert [shown[row] for row in range(len(shown))] == rows


def test_every_path_and_name_on_the_map_exists() -> None:
    everything = {name for _, tree in modules().values() for name in named(tree)}
    for line in MAP.splitlines():
        here = everything
        for span in re.findall(r"`([^`]+)`", line):
            if "/" in span:
                assert (ROOT / span).exists(), span
                if span.endswith(".py") and span.startswith("rtsx/"):
                    here = named(ast.parse((ROOT / span).read_text()))
            elif span not in {"make contract"}:
                assert span in (here if line.startswith("|") else everything), f"{span} is not where the map has it"
    for name in re.findall(r"\b[A-Z][a-z]+[A-Z]\w+", MAP):
        assert name in everything | {"GeoDataFrame"}, name


def named(tree: ast.Module) -> set[str]:
    """Names of what a module defines at its top, listed or not."""
    return {
        name
        for node in tree.body
        for name in (
            [node.name]
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
            else [target.id for target in ast.walk(node) if isinstance(target, ast.Name)]
            if isinstance(node, ast.Assign | ast.AnnAssign)
            else []
        )
    }
