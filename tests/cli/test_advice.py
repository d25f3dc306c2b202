"""What messages advise can be typed: no Python stands in any that a command prints."""

import ast
import re
import shlex
import shutil
import subprocess
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
import xarray as xr
import yaml
from rasterio.transform import from_origin

import rtsx
from rtsx.cli.advice import in_command_words
from rtsx.footprints import write_footprints

PYTHON = re.compile(
    r"(?<![\w/|-])[a-z][a-z_]*=(?![=>])|\brtsx\.\w|\b[a-z]+_[a-z_]*\((?!s\))|\b[iI]n Python\b|\w\.\w+\(|\b[a-z_]+\(\)|\bxr\.|rioxarray|ModelBundle|read_run|\bSensor of|as keywords"
)
ROOT = Path(rtsx.__file__).parent

# Lines on which messages of a part of rtsx are printed.
LINES = {
    "campaign": ["campaign run c.yaml", "campaign status maps"],
    "config": ["cube build c.yaml --out c.zarr", "train t.yaml --out run"],
    "cube": [
        "predict a.tif -m demo --out m.zarr",
        "predict c.yaml -m demo --out m.zarr",
        "cube build c.yaml --out c.zarr",
    ],
    "evaluation": ["evaluate m.zarr --truth a.gpkg", "evaluate e.yaml -m demo", "cross-validate t.yaml --out folds"],
    "footprints": ["footprints m.zarr --out a.gpkg", "merge a.gpkg --out b.gpkg", "track 2023=a.gpkg --out t.gpkg"],
    "grid": ["cube build c.yaml --out c.zarr"],
    "inference": ["predict a.tif -m demo --out m.zarr", "campaign run c.yaml"],
    "labels": ["labels standardise a.shp --out b.gpkg", "evaluate m.zarr --truth a.gpkg", "train t.yaml --out run"],
    "model": ["predict a.tif -m demo --out m.zarr", "model import net.onnx --out b", "campaign plan c.yaml"],
    "ordering": ["order plan o.yaml"],
    "storage": ["predict a.tif -m demo --out m.zarr", "cube build c.yaml --out c.zarr"],
    "synthetic": ["synthetic scenes --seeds 1 --out a"],
    "tiling": ["predict a.tif -m demo --out m.zarr"],
    "training": ["train t.yaml --out run"],
}
# Said to whoever calls functions, of arguments that no command hands on.
ONLY_PYTHON = re.compile(
    r"Grid\(|This array of|rioxarray left|which GDAL reads|state_dict\(\)|geopandas\.GeoDataFrame|column_?s? .*(GeoDataFrame|dtype)|takes a ModelBundle or|no attribute|active geometry|"
    r"grid\.cells|replace\(tzinfo|rasterize_labels\(labels|Campaign\.create|class=\"|profile=|signal\.|\{'id'|proj=|application="
)


def messages() -> Iterator[tuple[str, str, int, str]]:
    """Part, file, line and text of every sentence in the source; what is filled in is X1."""
    for path in sorted(ROOT.rglob("*.py")):
        part = path.relative_to(ROOT).parts[0]
        if part not in LINES:
            continue
        tree = ast.parse(path.read_text())
        raised = [
            call for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc for call in ast.walk(node.exc)
        ]
        inside = {id(value) for node in raised if isinstance(node, ast.JoinedStr) for value in ast.walk(node)}
        for node in raised:
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(one.value) if isinstance(one, ast.Constant) else "X1" for one in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
                text = node.value
            else:
                continue
            if PYTHON.search(text) and not ONLY_PYTHON.search(text):
                yield part, str(path.relative_to(ROOT)), node.lineno, text


def test_no_message_of_a_command_advises_in_python() -> None:
    found = list(messages())
    assert len(found) > 80, "the sentences are found"
    bad = [
        f"{file}:{number} under {line!r}: {said}"
        for part, file, number, text in found
        for line in LINES[part]
        if PYTHON.search(said := in_command_words(text, line.split()))
    ]
    assert not bad, "\n".join(bad)


@dataclass(frozen=True, kw_only=True)
class Cure:
    """What a message advises, and that it helps."""

    line: str
    """Command that fails."""
    told: str
    """Expression that finds the cure in the message."""
    then: str = "{line} {cure}"
    """Command that works, of the groups of the expression; begins with $ where it is one of the shell's, on which the line works."""
    edit: Callable[[str, "re.Match[str]"], str] | None = None
    """What becomes of the YAML file that the line names, on which the line works."""


_LABELS = "evaluate map.zarr --truth"
_IMPORT = (
    "model import net.pt --layers red,nir --mean 0.1,0.1 --std 0.1,0.1 --classes a --tile 64 --overlap 32 --out b2"
)
_PREDICT = "predict {} -m small --tile 128 --overlap 32 --out m.zarr"
_SCALED = f"{_PREDICT} --scale 0.0001"
CURES = {
    "scale of integers": Cure(
        line=_PREDICT.format("named.tif"),
        told=r"Set (?P<cure>--scale) to .*\(PlanetScope: (?P<value>[\d.]+)\)",
        then="{line} {cure} {value}",
    ),
    "scale of floats": Cure(
        line=_PREDICT.format("floats.tif"),
        told=r"Set (?P<cure>--scale) to what .*: (?P<value>0\.0001) for those of PlanetScope",
        then="{line} {cure} {value}",
    ),
    "sensor of floats": Cure(
        line=_PREDICT.format("reflectance.tif --sensor planetscope"),
        told=r"Leave --sensor planetscope out, and name the bands in their order with (?P<cure>--layers) A,B",
        then=_PREDICT.format("reflectance.tif") + " {cure} blue,green,red,nir",
    ),
    "scale of floats that have none": Cure(
        line=_PREDICT.format("reflectance.tif") + " --scale 0.0001",
        told=r"Leave (?P<cure>--scale) out\.",
        then=_PREDICT.format("reflectance.tif"),
    ),
    "sensor of floats in a config": Cure(
        line=_PREDICT.format("cube.yaml"),
        told=r"Leave scale and (?P<cure>sensor) of blue out of cube\.yaml, and name the bands under layers\.",
        edit=lambda text, told: text.replace(f"    {told['cure']}: planetscope\n", "    layers: [blue, green, red, nir]\n"),
    ),
    "sensor": Cure(line=_PREDICT.format("named.tif"), told=r"with (?P<cure>--sensor planetscope)"),
    "sensor of a config": Cure(
        line=_PREDICT.format("cube.yaml"),
        told=r"with `(?P<cure>sensor: planetscope)` in cube.yaml",
        edit=lambda text, told: text.replace("files: named.tif", f"files: named.tif\n    {told['cure']}"),
    ),
    "missing values": Cure(line=_SCALED.format("holes.tif"), told=r"Set (?P<cure>--nodata -9999)\."),
    "names of bands": Cure(
        line=_SCALED.format("unnamed.tif"),
        told=r"name all bands in their order with (?P<cure>--layers) A,B",
        then="{line} {cure} blue,green,red,nir",
    ),
    "names of bands that stand twice": Cure(
        line="info named.tif floats.tif",
        told=r"Name them with (?P<cure>--layers) A,B",
        then="{line} {cure} a,b,c,d,e,f,g,h",
    ),
    "number of a band": Cure(
        line="cube build cube.yaml --out c.zarr",
        told=r"such as `(?P<cure>blue: 1)`, under `layers`",
        edit=lambda text, told: text.replace("layers: [blue, green]", f"layers: {{{told['cure']}, green: 2}}"),
    ),
    "output that is there": Cure(line="footprints map.zarr --out there.gpkg", told=r"pass (?P<cure>--overwrite)"),
    "another format": Cure(
        line=_SCALED.format("named.tif").replace("m.zarr", "m.tif"),
        told=r"Name it (?P<cure>m\.zarr)\.",
        then=_SCALED.format("named.tif").replace("m.zarr", "{cure}"),
    ),
    "format of outlines": Cure(
        line="footprints map.zarr --out f.shp", told=r"one of (?P<cure>\.\w+)", then="footprints map.zarr --out f{cure}"
    ),
    "tile": Cure(line=f"{_SCALED.format('named.tif')} --augment hflop", told=r"some of (?P<cure>hflip)", then=_SCALED.format("named.tif") + " --augment {cure}"),
    "no region": Cure(
        line="cube build cube.yaml --out c.zarr",
        told=r"`(?P<cure>region: \{bbox: \[)WEST, SOUTH, EAST, NORTH\]\}` in cube.yaml",
        edit=lambda text, told: text.replace("region: {file: named.tif}", f"{told['cure']}-135, 63.12, -134.99, 63.13]}}"),
    ),
    "name of a store": Cure(
        line="cube build cube.yaml --out c", told=r"Use (?P<cure>c\.zarr)\.", then="cube build cube.yaml --out {cure}"
    ),
    "misspelt key": Cure(
        line="cube build cube.yaml --out c.zarr",
        told=r"grid\.resolutn: unknown key; did you mean '(?P<cure>\w+)'",
        edit=lambda text, told: text.replace("resolutn", told["cure"]),
    ),
    "variable that is not set": Cure(
        line="cube build cube.yaml --out c.zarr",
        told=r"write (?P<cure>\$\{RTSX_NOT_SET:-)default\}",
        edit=lambda text, told: text.replace("${RTSX_NOT_SET}", f"{told['cure']}.}}"),
    ),
    "layer of a file": Cure(
        line=f"{_LABELS} layers.gpkg", told=r"the one that is meant: (?P<cure>'.*')", then=f"{_LABELS} {{cure}}"
    ),
    "CRS of labels": Cure(
        line="labels standardise nowhere.gpkg --out l.gpkg", told=r"say (?P<cure>--crs EPSG:)\.\.\.", then="{line} {cure}32608"
    ),
    "CRS of a truth": Cure(line=f"{_LABELS} nowhere.gpkg", told=r"say (?P<cure>--crs EPSG:)\.\.\.", then="{line} {cure}32608"),
    "no prediction": Cure(
        line="footprints named.tif --out f.gpkg", told=r"Make one with rtsx (?P<cure>predict)\.", then="{cure} " + _SCALED.format("named.tif").removeprefix("predict ")
    ),
    "archive": Cure(line="info all.zip", told=r"(?P<cure>/vsizip/\S+\.tif)", then="info {cure}"),
    "packed file": Cure(line="info packed.tif.gz", told=r"Unpack it with: (?P<cure>gunzip -k \S+)", then="$ {cure}"),
    "variables of NetCDF": Cure(line="info two.nc", told=r"single quotes: (?P<cure>'NETCDF:\S+')", then="info {cure}"),
    "year of outlines": Cure(
        line="track there.gpkg --out t.gpkg", told=r"such as\s+(?P<cure>2024=)", then="track {cure}there.gpkg --out t.gpkg"
    ),
    "trust": Cure(line=_IMPORT, told=r"pass (?P<cure>--trust)"),
}  # fmt: skip
CONFIGS = {
    "sensor of a config": {},
    "sensor of floats in a config": {
        "files: named.tif": "files: reflectance.tif",
        "    layers: [blue, green, red, nir]": "    sensor: planetscope",
    },
    "number of a band": {"files: named.tif": "files: unnamed.tif", "[blue, green, red, nir]": "[blue, green]"},
    "no region": {"region: {file: named.tif}\n": ""},
    "misspelt key": {"resolution": "resolutn"},
    "variable that is not set": {"files: named.tif": 'files: "${RTSX_NOT_SET}/named.tif"'},
    "name of a store": {},
}
"""What is wrong in the YAML files, as changes of a right one."""
CONFIG = """grid: {crs: EPSG:32608, resolution: 3}
region: {file: named.tif}
sources:
  image:
    files: named.tif
    layers: [blue, green, red, nir]
"""


@pytest.fixture(scope="module")
def prepared(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of everyday life."""
    folder = tmp_path_factory.mktemp("cures")
    stored = np.random.default_rng(5).integers(300, 3000, (4, 128, 128))
    holes = np.where(stored < 600, -9999, stored)
    for name, pixels, names in (
        ("named", stored.astype("uint16"), True),
        ("unnamed", stored.astype("uint16"), False),
        ("floats", stored + np.float32(0.25), True),
        ("holes", holes.astype("int16"), True),
        ("reflectance", (stored * 1.0001e-4).astype("float32"), True),
    ):
        profile = {"width": 128, "height": 128, "count": 4, "dtype": pixels.dtype, "crs": "EPSG:32608"}
        with rasterio.open(
            folder / f"{name}.tif", "w", driver="GTiff", transform=from_origin(500_000, 7_000_000, 3, 3), **profile
        ) as file:
            file.write(pixels)
            if names:
                file.descriptions = ("blue", "green", "red", "nir")
    shutil.copytree(bundle, folder / "small")
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        archive.write(folder / "named.tif", "named.tif")
    shutil.copy(folder / "named.tif", folder / "packed.tif")
    subprocess.run(["gzip", folder / "packed.tif"], check=True)
    cube = rtsx.open_cube(folder / "named.tif")
    for name in cube.data_vars:
        cube[name].attrs["scale_factor"] = 1e-4
    pred = rtsx.predict_cube(cube, rtsx.ModelBundle.open(bundle), tile=128, overlap=32)
    rtsx.write_cube(pred, folder / "map.zarr")
    write_footprints(rtsx.extract_footprints(pred), folder / "there.gpkg")
    outlines = gpd.GeoDataFrame(geometry=[shapely.box(500_100, 6_999_800, 500_200, 6_999_900)], crs="EPSG:32608")
    outlines.set_crs(None, allow_override=True).to_file(folder / "nowhere.gpkg")
    for layer in ("north", "south"):
        outlines.to_file(folder / "layers.gpkg", layer=layer)
    coords = {"y": 7_000_000 - 3.0 * np.arange(32), "x": 500_000 + 3.0 * np.arange(32)}
    two = xr.Dataset({name: (("y", "x"), np.ones((32, 32), "float32")) for name in ("red", "nir")}, coords)
    two.rio.write_crs("EPSG:32608").rio.write_coordinate_system().to_netcdf(folder / "two.nc")
    with warnings.catch_warnings(action="ignore"):  # torch announces the end of TorchScript
        torch.jit.save(torch.jit.script(torch.nn.Conv2d(2, 1, 3, padding=1)), folder / "net.pt")
    return folder


@pytest.mark.filterwarnings("ignore::rtsx.errors.LayerValuesWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", CURES)
def test_a_cure_that_is_typed_helps(
    name: str, prepared: Path, rtsx_command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cure = CURES[name]
    folder = shutil.copytree(prepared, tmp_path / "here")
    monkeypatch.chdir(folder)
    text = CONFIG
    for right, wrong in CONFIGS.get(name, {}).items():
        text = text.replace(right, wrong)
    (folder / "cube.yaml").write_text(text)
    failed = rtsx_command(*shlex.split(cure.line))
    assert failed.status == 2
    said = re.sub(r"[\s│]+", " ", failed.err)
    told = re.search(cure.told, said)
    assert told is not None, said
    then = cure.then
    if cure.edit is not None:
        (folder / "cube.yaml").write_text(cure.edit(CONFIG if name == "no region" else text, told))
        then = "{line}"
    elif then.startswith("$"):
        subprocess.run(shlex.split(then[1:].format(**told.groupdict())), check=True)
        then = cure.line.removesuffix(".gz")
    again = rtsx_command(*shlex.split(then.format(line=cure.line, **told.groupdict())))
    assert again.status == 0, again.err


@pytest.mark.parametrize(
    "options", ["--scale 0.0001", "--sensor planetscope", "--scale 0.0001 --layers blue,green,red,nir"]
)
def test_the_lines_of_yaml_for_another_resolution_are_a_cube(
    options: str, prepared: Path, rtsx_command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shutil.copytree(prepared, tmp_path / "here"))
    said = in_command_words(
        "Objects look smaller. Open layers blue, green, red, nir, ndvi at a resolution of 1.5 m of EPSG:32608.",
        shlex.split(f"predict {'unnamed' if 'layers' in options else 'named'}.tif -m demo {options} --out m.zarr"),
    )
    place = re.search(
        r"Write these lines into a file such as (\S+), and give that in place of \w+\.tif:\n(.*)", said, re.DOTALL
    )
    assert place is not None, said
    Path(place[1]).write_text(place[2])
    assert len(yaml.safe_load(place[2])) == 3
    shown = rtsx_command("info", place[1])
    assert shown.status == 0, shown.err
    assert "1.5 m" in shown.out
    cube = rtsx.open_cube(place[1])
    assert cube["red"].attrs["scale_factor"] == 1e-4
    assert cube.sizes["x"] in range(255, 260)
