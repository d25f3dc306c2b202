"""Arguments and options that several commands share, opening what they name, and checks of outputs, made before any work starts."""

import re
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import product
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

import rtsx
from rtsx.cli.console import print_info, warn
from rtsx.errors import (
    BundleError,
    CampaignError,
    CubeError,
    InputNotFoundError,
    OutputExistsError,
    OutputNotWritableError,
    ReviewError,
)
from rtsx.names import DEMO, bundle_path
from rtsx.storage import absolute, file_system, local_path, refuse_other_format
from rtsx.storage.object_store import open_object_store

if TYPE_CHECKING:
    import geopandas
    import xarray as xr

    from rtsx.campaign import Campaign


VECTORS = (
    ".parquet",
    ".geoparquet",
    ".gpkg",
    ".fgb",
    ".geojson",
    ".shp",
    ".shz",
    ".shp.zip",
    ".kml",
    ".kmz",
    ".csv",
    ".gml",
)
"""Endings of files of outlines."""
FOOTPRINT_SUFFIXES = (".parquet", ".gpkg", ".fgb")
"""Endings that outlines are written with."""

FAULTY = 1
"""Exit status of a look that has found something wrong or not done."""

Input = partial(typer.Option, rich_help_panel="Input")
Tiling = partial(typer.Option, rich_help_panel="Tiling")
Network = partial(typer.Option, rich_help_panel="Network")
Output = partial(typer.Option, rich_help_panel="Output")
Rule = partial(typer.Option, rich_help_panel="Rule")


PredictionArgument = Annotated[
    str, typer.Argument(metavar="PREDICTION", help="A Zarr store that `rtsx predict` wrote.", show_default=False)
]
YearOption = Annotated[
    int | None, Input(metavar="YYYY", help="Year of a map that holds several; its only one if left out.")
]
OutlinesOption = Annotated[str, Output(metavar="FILE", help="Where to: .parquet, .gpkg or .fgb.")]
OverwriteOption = Annotated[bool, Output("--overwrite", help="Replace outputs that exist.")]

LayersOption = Annotated[
    str | None,
    Input(
        metavar="A,B,...", help="Layers to use; for GeoTIFFs without band names, the names of the bands in their order."
    ),
]
SensorName = Literal[
    "planetscope",
    "planet-basemap",
    "sentinel2-l2a",
    "sentinel2-l2a-04.00",
    "landsat",
    "hls",
    "sentinel1-rtc",
    "arcticdem",
    "tcvis",
]
"""Names in `rtsx.cube.SENSORS` that files have, which loads what refusals do not wait for; a test holds one to the other."""
MaskRuleName = Literal["tss-v1", "darts-v2", "sentinel2-scl", "landsat-qa-pixel", "hls-fmask", "model-sky"]
"""Likewise in `rtsx.cube.MASK_RULES`."""

SensorOption = Annotated[SensorName | None, Input(help="What the bands of the GeoTIFFs are.")]
ScaleOption = Annotated[
    float | None,
    Input(metavar="X", help="Physical value of stored 1 in layers that do not say; 0.0001 for most reflectance."),
]
NodataOption = Annotated[
    float | None, Input(metavar="X", help="Stored value of missing pixels in layers that do not say theirs.")
]

TrustOption = Annotated[bool, Network("--trust", help="Read model files that can run code of their author when read.")]
DeviceOption = Annotated[str, Network(help="auto, cpu, cuda or cuda:N.")]


MinAreaOption = Annotated[
    float | None,
    Output("--min-area-m2", help="Leave out smaller objects, in m²; the model's own, or 288, if left out."),
]
ThresholdOption = Annotated[
    float | None, Output(help="Least probability (0-1) of an object; the model's own if left out.")
]

CampaignArgument = Annotated[
    str, typer.Argument(metavar="CAMPAIGN", help="The YAML file, or the output's folder or URL.", show_default=False)
]
CampaignYearOption = Annotated[
    int | None, typer.Option(help="Another year than the file's; of an output, the newest if left out.")
]


def given_of(line: typer.Context, *names: str) -> list[str]:
    """Return those of some options, or arguments by their metavar, that a line gives another value than the usual."""
    return [
        name
        for option in line.command.params
        for name in {option.opts[0], str(getattr(option, "metavar", ""))} & {*names}
        if line.params[str(option.name)] not in (None, (), option.default)
    ]


def misused(option: str, reason: str) -> typer.BadParameter:
    """Return the error about an option, or about an argument by its metavar."""
    return typer.BadParameter(reason, param_hint=option)


def words(given: str | None) -> list[str] | None:
    """Split a comma list.

    Examples
    --------
    >>> words("blue, green,nir")
    ['blue', 'green', 'nir']
    """
    return None if given is None else [word.strip() for word in given.split(",") if word.strip()]


def numbers(given: str, *, option: str) -> list[float]:
    """Split a comma list of numbers.

    Raises
    ------
    typer.BadParameter
        Something in it is no number.

    Examples
    --------
    >>> numbers("1,0.5", option="--scales")
    [1.0, 0.5]
    """
    try:
        return [float(word) for word in words(given) or []]
    except ValueError as error:
        raise misused(option, f"expected numbers separated by commas, such as 1,0.5; got {given!r}.") from error


Side = int | Literal["auto", "bundle"]
"""Pixels of a side, or whose choice it is."""


def side_of(given: str, *, option: str, words: tuple[str, ...] = ("auto", "bundle")) -> Any:
    """Read a number of pixels, or one of a few words.

    Raises
    ------
    typer.BadParameter
        It is none of them.

    Examples
    --------
    >>> side_of("512", option="--tile"), side_of("auto", option="--tile")
    (512, 'auto')
    """
    if given not in words and not given.isdecimal():
        raise misused(option, f"expected {', '.join(words)} or a number of pixels; got {given!r}.")
    return given if given in words else int(given)


# Of GDAL's drivers and virtual file systems, and of fsspec: what is there behind them only they know.
_ELSEWHERE = re.compile(r"^(/vsi|[A-Za-z][A-Za-z0-9_+]+:)")


def require_there(paths: Iterable[str | None]) -> None:
    """Refuse local paths that hold nothing; None passes.

    Raises
    ------
    InputNotFoundError
        One does.
    """
    for path in paths:
        if path is not None and not _is_there(path):
            raise InputNotFoundError(f"{path} cannot be opened: there is no such file or folder. Check the path.")


def is_yaml(given: str) -> bool:
    """Test whether a path is that of a YAML file, by its ending."""
    return Path(given).suffix.lower() in (".yaml", ".yml")


def require_known_keys(path: str, kind: Literal["cube", "campaign"]) -> None:
    """Refuse a YAML file for keys that it cannot have, before anything heavy is loaded; other files pass."""
    if is_yaml(path):
        from rtsx.config.yaml import refuse_unknown_keys

        refuse_unknown_keys(path, kind)


def require_models(models: Iterable[str]) -> None:
    """Refuse local paths of models that hold nothing.

    Raises
    ------
    BundleError
        One does.
    """
    for model in models:
        if not _is_there(bundle_path(model)):
            raise BundleError(
                f"There is no model at {model}. Check the path; it is a bundle's folder or a file of weights, or {DEMO}, which ships "
                "with rtsx."
            )


def _is_there(path: str) -> bool:
    return bool(_ELSEWHERE.match(path)) or Path(path.partition("|layername=")[0]).expanduser().exists()


def require_device(device: str) -> None:
    """Refuse a device that this machine does not have; loads torch, and no network.

    Raises
    ------
    BundleError
        It is unknown, or not there.
    """
    if device not in {"auto", "cpu"}:
        from rtsx.model.network import resolve_device

        resolve_device(device)


def open_image(
    paths: Sequence[str],
    *,
    layers: str | None,
    sensor: str | None,
    mask: str | None,
    mask_rule: str | None,
    chunks: str,
    scale: float | None,
    nodata: float | None,
) -> "xr.Dataset":
    """Open the cube of a Zarr store or of raster files, by options as they were given.

    Raises
    ------
    CubeError
        See `rtsx.open_cube`.
    """
    if (mask is None) != (mask_rule is None):
        given = "--mask" if mask is None else "--mask-rule"
        rules = ", ".join(get_args(MaskRuleName))
        raise misused(
            given,
            f"--mask and --mask-rule go together; a rule is one of {rules}, of which tss-v1 and darts-v2 read PlanetScope's UDM2.",
        )
    side = side_of(chunks, option="--chunks", words=("auto",))
    require_there([*paths, mask])
    for path in paths:
        require_known_keys(path, "cube")
    cube = rtsx.open_cube(
        paths[0] if len(paths) == 1 else list(paths),
        layers=words(layers),
        sensor=sensor,
        mask=None if mask is None or mask_rule is None else (mask, mask_rule),
        chunks=side,
    )
    if scale is not None:
        # Floats only where all are, because beside integers that are still to be scaled they are physical.
        silent = _silent(cube, "scale_factor", option="--scale")
        integers = [name for name in silent if cube[name].dtype.kind in "iu"]
        cube = cube.assign({name: cube[name].assign_attrs(scale_factor=scale) for name in integers or silent})
    if nodata is not None:
        from rtsx.cube.encoding import missing_values

        marked = {
            name: cube[name].assign_attrs(_FillValue=nodata) for name in _silent(cube, "_FillValue", option="--nodata")
        }
        odd = [name for name, layer in marked.items() if not (isnan(nodata) or missing_values(layer))]
        if odd:
            raise misused(
                "--nodata", f"{nodata:g} is no value of layers {', '.join(odd)}, which are {cube[odd[0]].dtype}."
            )
        cube = cube.assign(marked)
    return cube


def _silent(cube: "xr.Dataset", attribute: str, *, option: str) -> list[str]:
    """Layers without an attribute, which an option gives them."""
    from rtsx.cube import layer_names

    silent = [name for name in layer_names(cube) if attribute not in cube[name].attrs]
    if not silent:
        raise misused(option, "every layer says its own; leave it out.")
    return silent


def open_models(models: Sequence[str], *, trust: bool) -> "list[rtsx.ModelBundle]":  # whose name loads torch
    """Open one bundle per name; `demo` is the one that ships with rtsx.

    Raises
    ------
    BundleError
        See `rtsx.ModelBundle.open`.
    """
    require_models(models)
    return [rtsx.ModelBundle.open(bundle_path(model), trust=trust) for model in models]


def open_prediction(path: str) -> "xr.Dataset":
    """Open what `rtsx predict` wrote.

    Raises
    ------
    CubeError
        It is something else.
    """
    require_there([path])
    stored = rtsx.open_cube(path)
    missing = [name for name in ("probability", "binary") if name not in stored]
    if missing:
        raise CubeError(
            f"{path} is no prediction: it has {', '.join(map(str, stored.data_vars))}, and lacks {' and '.join(missing)}. "
            "Make one with rtsx predict."
        )
    return stored


def open_year(path: str, year: int | None, *, several_dates: bool = False) -> "xr.Dataset":
    """Open one year of what `rtsx predict` wrote, without the dimension time where that leaves one date.

    Raises
    ------
    CubeError
        It is something else.
    typer.BadParameter
        The map holds several years and none is chosen, not the one that is, or several dates of it where there must be one.
    """
    stored = open_prediction(path)
    from rtsx.cube.times import with_facts, years_of  # loads xarray, which `--help` does not wait for

    years = years_of(stored)
    known = sorted({one for one in years if one is not None})
    held = ", ".join([*map(str, known), *["times without a year"] * (None in years)])
    if year is not None and year not in known:
        raise misused("--year", f"{path} holds {held or 'a map that says no year'}.")
    if year is None and known and len({*years}) > 1:
        raise misused("--year", f"{path} holds {held}: say which, such as --year {known[0]}.")
    places = [place for place, one in enumerate(years) if year in (None, one)]
    if len(places) > 1 and not several_dates:
        dates = [str(stored["time"].values[place])[:10] for place in places]
        raise CubeError(
            f"{path} holds {len(places)} dates of {years[places[0]] or 'no year'}, and this takes one map: "
            f"{', '.join(dates)}. Predict a cube of one date, or a composite of the year."
        )
    if "time" not in stored.dims or not years:
        return with_facts(stored)
    return with_facts(stored.isel(time=places if len(places) > 1 else places[0]))


def open_campaign(given: str, *, year: int | None, is_of_one: bool = True, takes_another: bool = False) -> "Campaign":
    """The campaign that a config or an output names, to look at it; neither bundles nor sources are needed.

    Parameters
    ----------
    given
        Config or output.
    year
        Which; None for that of the config, or the newest.
    is_of_one
        Whether what follows is of one year, which is then shown where none was given.
    takes_another
        Whether the newest other year does where the plan of that one is damaged, which a warning says then.

    Raises
    ------
    ConfigError
        The config cannot be read.
    CampaignError
        There is no plan of that year.
    """
    place: dict[str, Any] = {}
    if not is_yaml(given):
        if "://" not in given and not Path(given).expanduser().is_dir():
            raise CampaignError(f"{given} holds no campaign. Check the path, or plan the campaign first.")
        output, stated = given, None
    else:
        require_there([given])
        require_known_keys(given, "campaign")
        from rtsx.config.place import CampaignOutput
        from rtsx.config.yaml import read_yaml, validate_config

        config = validate_config(CampaignOutput, read_yaml(given))
        output, stated, place = config.output, config.year, {"storage_options": config.storage_options}
    from rtsx.campaign import Campaign  # here, because it is heavy

    try:
        opened = Campaign.open(output, year=year or stated, **place)
    except CampaignError as error:
        if not takes_another or isinstance(error.__cause__, OSError):
            raise
        opened = _another_year(output, error, year=year or stated, place=place)
        warn(str(error))
    if year is None and is_of_one:
        print_info(f"Year {opened.plan.year}, as no --year was given")
    return opened


def _another_year(output: str, damage: CampaignError, *, year: int | None, place: dict[str, Any]) -> "Campaign":
    """The newest year whose plan can be read; raises `damage` where there is none, or `year` was never planned."""
    from rtsx.campaign import Campaign
    from rtsx.campaign.ledger import planned_years

    planned = planned_years(open_object_store(output, place.get("storage_options", {})))
    for other in reversed(planned if year in (None, *planned) else []):
        with suppress(CampaignError):
            return Campaign.open(output, year=other, **place)
    raise damage


def open_reviewed(path: str, *, needs_outlines: bool = True) -> "geopandas.GeoDataFrame":
    """Merge a review into one table of outlines with verdicts, those last that reviewers have drawn; or read what a merge wrote.

    Where outlines are not needed, a CSV may lack them.

    Raises
    ------
    ReviewError
        It is none.
    """
    if path.lower().endswith(VECTORS):
        require_there([path])
        file = Path(path)
        if file.stem in {"confirmed", "refused"} and (file.parent / "status.json").is_file():
            raise ReviewError(
                f"{path} has the {file.stem} outlines of a review alone, so that all others would count as never reviewed. Give its "
                f"folder, {file.parent}."
            )
        from rtsx.labels.io import read_table  # here, because they are heavy

        if not needs_outlines and file.suffix.lower() == ".csv":
            from rtsx.evaluation.accuracy import read_sample_csv

            return read_sample_csv(file)
        return read_table(path, what="a review")
    from rtsx.review import merge_review, open_review
    from rtsx.review.merge import read_merged

    merged = None if _ELSEWHERE.match(path) else read_merged(local_path(path))
    return merge_review(open_review(absolute(path))).table if merged is None else merged


def drawn_units(reviewed: "geopandas.GeoDataFrame") -> "geopandas.GeoDataFrame":
    """Return a reviewed sample without what reviewers have added, which nobody has drawn at random."""
    if "is_added" not in reviewed.columns:
        return reviewed
    return reviewed[~reviewed["is_added"].astype(str).str.lower().isin(("true", "1"))]  # a CSV has words


def has_valid_pixel(pred: "xr.Dataset") -> bool:
    """Test whether a pixel of a map is valid; reads as far as the first chunk that has one."""
    valid = pred["valid"].data
    return any(bool(valid.blocks[index].any()) for index in product(*map(range, valid.numblocks)))


def require_absent(outputs: Iterable[str | Path | None], *, overwrite: bool) -> None:
    """Refuse unless every output can be written; the folders that are missing are made when it is.

    Raises
    ------
    OutputExistsError
        Something is there, and `overwrite` is False.
    OutputNotWritableError
        A local folder cannot be written, or fsspec does not know the URL's protocol.
    """
    paths = [absolute(str(path)) for path in outputs if path is not None]
    located = [(path, *file_system(path, {}, error=OutputNotWritableError)) for path in paths]
    for path, filesystem, inner in located:
        if not overwrite and filesystem.exists(inner):
            raise OutputExistsError(f"{path} exists already. Choose another path, or pass --overwrite to replace it.")
    for path, filesystem, inner in located:
        if "file" in filesystem.protocol:
            folder = next(parent for parent in Path(inner).absolute().parents if parent.exists())
            try:
                # Tried instead of asked for, because permission bits say nothing of read-only mounts or of root.
                with tempfile.TemporaryFile(dir=folder):
                    pass
            except OSError as error:
                raise OutputNotWritableError(
                    f"Cannot write {path}: {folder} is not writable ({error.strerror}). Choose another folder."
                ) from error


def require_new(output: str | Path, *, what: str, suffixes: tuple[str, ...] = (), overwrite: bool) -> None:
    """Refuse an output whose ending promises another format than it gets, as `refuse_other_format`, or as `require_absent`."""
    refuse_other_format(output, what=what, suffixes=suffixes)
    require_absent([output], overwrite=overwrite)


def require_local(output: str, *, option: str) -> None:
    """Refuse a URL for what only goes to a local disk.

    Raises
    ------
    OutputNotWritableError
        It is a URL.
    """
    if "://" in output:
        raise OutputNotWritableError(f"{option} takes a local path; got {output}. Write it here, then copy it there.")


def require_suffix(output: str | Path | None, suffixes: Sequence[str], *, option: str, overwrite: bool) -> None:
    """Refuse a file whose ending names no format that we write, or that is not local, or as `require_absent`; None passes.

    Raises
    ------
    OutputNotWritableError
        It is a URL, or has another ending; the message lists them.
    """
    if output is None:
        return
    require_local(str(output), option=option)
    if not str(output).endswith(tuple(suffixes)):
        raise OutputNotWritableError(
            f"{option} takes its format from the ending, one of {', '.join(suffixes)}; got {output}. Rename it."
        )
    require_absent([output], overwrite=overwrite)


def in_folder(output: str) -> Path:
    """Return the path of a local output, whose folder is made where it is missing."""
    path = Path(output)
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    return path
