"""The list of commands: it says what the commands say, and loads none of them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import rasterio
import typer
from typer.core import TyperOption
from typer.main import get_command

import rtsx
from rtsx.cli.app import COMMANDS, app
from rtsx.cli.info import GPU_DRIVERS
from rtsx.cli.options import MaskRuleName, SensorName
from rtsx.cube import MASK_RULES, SENSORS
from rtsx.training.augment import AUGMENTATIONS
from rtsx.training.recipe import AUGMENTATION_NAMES
from tests.campaign.small_campaign import make_recipe, write_country, write_years
from tests.cli.conftest import Outcome


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_the_command_says(name: str) -> None:
    loaded = get_command(app).load(name)
    said = " ".join(loaded.help.split("\n\n")[0].split())
    assert COMMANDS[name].help == said
    assert hasattr(loaded, "commands") == COMMANDS[name].is_group
    # And what is true of it, and of each of its own commands, after Ctrl-C.
    stopped = COMMANDS[name].stopped
    assert (None if isinstance(stopped, str) else set(stopped)) == (set(getattr(loaded, "commands", ())) or None)
    for said in (stopped,) if isinstance(stopped, str) else stopped.values():
        assert said.format(again="the same command").endswith(".")


# What can be known from arguments and files is answered without the libraries that would do the work: in the order of
# what has to be loaded to know it. Help and looks end with status 0, refusals with 2.
WITHOUT_ANY = """
--help
{each} --help
predict missing.tif -m demo --out x.zarr
predict scene.tif -m missing --out x.zarr
predict scene.tif -m demo --out x.zarr --mask missing --mask-rule tss-v1
predict scene.tif -m demo --out x.zarr --sensor planetscop
predict scene.tif -m demo --out full
predict scene.tif -m demo --out x.tif
predict scene.tif -m demo --out x.zarr --tile 100
predict scene.tif -m demo --out x.zarr --overlap 7
predict scene.tif -m demo --out x.zarr --tile 64 --overlap 64
predict scene.tif -m demo --out x.zarr --tile nine
predict scene.tif -m demo --out x.zarr --augment flop
predict scene.tif -m demo --out x.zarr --scales a
predict scene.tif -m demo --out x.zarr --footprints a.shp
evaluate missing.yaml -m demo
evaluate epochs.yaml -m missing
evaluate missing.zarr --truth x.gpkg
train missing.yaml --out run
cross-validate missing.yaml --out run
footprints missing.zarr --out a.gpkg
cog missing.zarr --out a
model info missing
model probe missing
model export missing --out a
model import missing --out a
cube build missing.yaml --out x.zarr
cube info missing.zarr
cube plot missing.zarr --out a.png
cube check missing.zarr
info missing
campaign status missing.yaml
campaign status missing
campaign plan missing.yaml
order plan missing.yaml
config import missing --out a
demo --out full
"""
# A campaign is looked at without what reads images or runs a network.
WITHOUT_DATA = """
campaign status typo.yaml
cube build typo.yaml --out x.zarr
cube info typo.yaml
cube check typo.yaml
cube plot typo.yaml --out a.png
campaign plan typo.yaml
predict typo.yaml -m demo --out x.zarr
campaign status planned.yaml
campaign status planned --check
campaign retry planned.yaml
campaign verify planned
campaign submit planned --slurm --workers 2 --time 1:00 --dry-run
campaign submit planned.yaml --slurm --workers 2 --time 1:00 --dry-run
campaign fetch typo.yaml --to x
campaign fetch missing --to x
"""
# Scenes are chosen, ordered and asked for without what reads them.
WITHOUT_IMAGES = """
order plan mistyped.yaml
order plan scenes.yaml
order submit scenes.yaml
order status scenes.yaml
order fetch scenes.yaml
order status basemap.yaml
order plan basemap.yaml
order submit basemap.yaml
order fetch basemap.yaml
order submit delivered.yaml
order fetch delivered.yaml
"""
WITHOUT_TORCH = """
train epochs.yaml --out run
train loss.yaml --out run
train names.yaml --out run
train paths.yaml --out run
train epochs.yaml --out run --log wndb
cross-validate epochs.yaml --out a
evaluate epochs.yaml -m demo
campaign plan campaign.yaml
predict scene.tif -m demo --out x.zarr --chunks 64
campaign fetch small/campaign.yaml --to store
"""
SCRIPT = """
import sys
from rtsx.cli import main
for words, expected, unwanted in {lines!r}:
    try:
        main(words)
    except SystemExit as left:
        status = left.code
    loaded = [name for name in unwanted if name in sys.modules]
    if status != expected or loaded:
        sys.exit(f'{{words}}: {{status}}, {{loaded}}')
"""


@pytest.mark.slow
def test_help_and_refusals_do_not_wait_for_heavy_libraries(tmp_path: Path) -> None:
    training = "id: a\nclasses: slump\nscenes: {training: {cube: missing.zarr, labels: missing.gpkg}}\n"
    cube = "cube: {sources: {a: {files: a.tif, layers: [red]}}}"
    order = "name: a\nregion: {bbox: [0, 60, 1, 61]}\nout: scenes\n"
    planned, small = tmp_path / "planned", tmp_path / "small"
    small.mkdir()
    write_years(small, 2024)
    rtsx.Campaign.create(make_recipe(write_country(tmp_path), str(planned)))
    for name, text in {
        "typo": f"{cube}\nyaer: 2024",
        "planned": f"name: small\nyear: 2024\nregion: arctic\n{cube}\nmodel: missing\noutput: {planned}\n",
        "epochs": training + "epochs: ten",
        "loss": training + "loss: {DiceLos: 1}",
        "names": training + "augment: [Blurr]\noptimiser: Adm\nmodel: {architectur: Unet}",
        "paths": training,
        "mistyped": f"{order}planet: {{bundl: analytic}}",
        "scenes": f"{order}period: {{years: 2024}}\nplanet: {{}}",
        "basemap": f"{order}basemap: {{mosaic: global}}",
        "delivered": f"{order}basemap: {{mosaic: a, delivery: {{destination: 'pl:destinations/a-1', bucket: gs://a}}}}",
        "campaign": f"name: a\nyear: 2024\nregion: arctic\n{cube}\nmodel: missing\noutput: out\n",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff", width=64, height=64, count=1, dtype="uint8", crs="EPSG:32608",
        transform=rasterio.transform.from_origin(5e5, 7e6, 3, 3),
    ):  # fmt: skip
        pass
    makers = ("torch", "distributed", "rasterio", "xarray", "pandas", "geopandas", "numba", "zarr", "pystac_client")
    lines: list[tuple[list[str], int, tuple[str, ...]]] = []
    if not any(Path(driver).exists() for driver in GPU_DRIVERS):  # whose GPUs only torch knows
        lines.append((["info"], 0, makers))
    for text, unwanted in (
        (WITHOUT_ANY, (*makers, "dask")),
        (WITHOUT_DATA, makers),
        (WITHOUT_IMAGES, tuple(name for name in makers if name != "pystac_client")),
        (WITHOUT_TORCH, ("torch",)),
    ):
        for line in text.strip().splitlines():
            for words in [[name, "--help"] for name in COMMANDS] if "{each}" in line else [line.split()]:
                looks = {"--help", "planned.yaml", "--dry-run", "store"} & set(words)
                lines.append((words, 0 if looks else 1 if "--check" in words else 2, unwanted))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(lines=lines)],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PL_API_KEY"} | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_names_that_options_list_are_those_that_there_are() -> None:
    assert set(get_args(SensorName)) == {name for name, sensor in SENSORS.items() if sensor.add_offset is not None}
    assert set(get_args(MaskRuleName)) == set(MASK_RULES)
    assert set(AUGMENTATION_NAMES) == set(AUGMENTATIONS)


def test_a_misspelt_command_is_guessed(rtsx_command) -> None:
    outcome = rtsx_command("predct")
    assert outcome.status == 2
    assert "Did you mean 'predict'?" in outcome.err


def test_no_option_that_takes_one_value_is_given_twice() -> None:
    """Every such option of every command, because click would keep the last of two without a word."""
    seen = 0

    def walk(command: Any, name: str) -> None:
        nonlocal seen
        for child, below in getattr(command, "commands", {}).items():
            walk(below, f"{name} {child}")
        for option in command.params:
            if isinstance(option, TyperOption) and not (option.multiple or option.count or option.is_flag):
                one = [option.opts[-1], *["1"] * option.nargs]
                with pytest.raises(typer.BadParameter, match="takes one value and was given 2 times"):
                    command.parse_args(typer.Context(command, info_name=name), [*one, *one])
                seen += 1

    group = get_command(app)
    for name in COMMANDS:
        walk(group.load(name), name)  # type: ignore[attr-defined]
    assert seen > 50


def test_an_option_that_is_given_twice_is_an_error_of_the_user(rtsx_command) -> None:
    outcome = rtsx_command("evaluate", "map.zarr", "--truth", "a.gpkg", "--threshold", "0.4", "--threshold", "0.6")
    assert outcome.status == 2
    assert "--threshold: it takes one value and was given 2 times; give it once." in " ".join(
        outcome.err.replace("│", " ").split()
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("config check a.yaml", "No such command 'check'. Commands of rtsx config are schema, example, import."),
        (
            "cube buld a.yaml",
            "No such command 'buld'. Did you mean 'build'? Commands of rtsx cube are init, build, info, check, plot.",
        ),
        (
            "campain plan a.yaml",
            "No such command 'campain'. Did you mean 'campaign'? Commands of rtsx are demo, predict,",
        ),
    ],
)
def test_a_command_that_there_is_not_names_those_that_there_are(
    rtsx_command: Callable[..., Outcome], words: str, said: str
) -> None:
    refused = rtsx_command(*words.split())
    assert refused.status == 2
    assert said in " ".join(refused.err.replace("│", " ").split())
