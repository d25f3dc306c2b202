"""YAML files to start from: cubes of a published model's layers or of a public catalog's product, and trainings of thaw-slump-segmentation.

Of a training, every key of the predecessor's config is translated, or named with what became of it.
"""

import re
import shlex
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from rtsx.config.cube import CubeConfig
from rtsx.config.yaml import Document, dump_yaml, parse_yaml, read_yaml, validate_config
from rtsx.errors import BundleError, ConfigError
from rtsx.model import ARCHITECTURES, PRESETS, canonical_layers
from rtsx.names import did_you_mean
from rtsx.storage import absolute

_SCENES = """\
  planetscope:
    sensor: planetscope
    # The folder that `rtsx order fetch` has put scenes into, or any STAC catalog of yours.
    catalog: {path: planetscope, max_cloud_cover: %(cloud)s, prefer_local: true}
    quality: {%(quality)s}
"""

_TRENDS = """\
  tcvis:
    # Computed from every scene of Landsat in the window: once, by `rtsx cube build %(name)s --only trend --resolution 30 --out trends.zarr`;
    # then `zarr: trends.zarr` with `layers: [tc_brightness, tc_greenness, tc_wetness]` stands in place of these three lines.
    sensor: landsat
    stac: {query: {"landsat:collection_category": {eq: T1}}}
    trend: "{tcvis_window}"
"""

_MODELS: Mapping[str, str] = MappingProxyType(
    {
        "tss-v1": _SCENES % {"cloud": 20, "quality": "erode_m: 30"}
        + "  dem:\n    sensor: arcticdem\n    terrain: [relative_elevation, slope]\n",
        "darts-v2": _SCENES % {"cloud": 60, "quality": "keep_low: false"}
        + "    group: day\n"
        + "  dem:\n    sensor: arcticdem\n    terrain: [relative_elevation, slope, aspect, hillshade, curvature]\n"
        + "    keep_dem: true\n",
    }
)
"""Sources of the published models, as YAML, before those of trends."""

_PIXEL_M = {"sentinel2": 10, "sentinel1-rtc": 10, "landsat": 30, "hls": 30, "arcticdem": 10}
"""Pixels of the products that public catalogs have, m."""

STARTERS = (*_MODELS, *_PIXEL_M)
"""What a file can be started from."""


_NORTHERN = (*_MODELS, "arcticdem")
"""What takes elevation from ArcticDEM, which ends in the north."""


def starter_yaml(preset: str, *, region: str, year: int, name: str = "cube.yaml") -> str:
    """Return the YAML text of a cube to start from; it opens as it stands, once the scenes that it names are there.

    Parameters
    ----------
    preset
        One of `STARTERS`: a published model, or a product of a public catalog.
    region
        West, south, east and north in degrees with commas or spaces between, the name of a cell such as ``r412c088``, or the path of a
        vector file or raster.
    year
        Of the images: July and August for tss-v1, July to September else.
    name
        File that it is going to be, for the commands in it.

    Raises
    ------
    ConfigError
        There is no such preset, the region is none, or it is in the south, where there is no ArcticDEM.

    Notes
    -----
    The grid is polar stereographic: EPSG:3413, or EPSG:3031 where the middle of the region is south of the equator.

    Examples
    --------
    >>> print(starter_yaml("sentinel2", region="-139.3,69.5,-138.9,69.65", year=2024))
    grid: {crs: 'EPSG:3413', resolution: 10}
    region: {bbox: [-139.3, 69.5, -138.9, 69.65]}
    period: {years: 2024, months: [7, 8, 9]}
    sources:
      sentinel2: {sensor: sentinel2}
    <BLANKLINE>
    """
    if preset not in STARTERS:
        raise ConfigError(
            f"A cube is started from one of {', '.join(STARTERS)}; got {preset!r}.{did_you_mean(preset, STARTERS)}"
        )
    is_model = preset in _MODELS
    months = [7, 8] if preset == "tss-v1" else [7, 8, 9]
    head = {
        **({"preset": preset} if is_model else {}),
        "grid": {"crs": "EPSG:3413", "resolution": 3 if is_model else _PIXEL_M[preset]},
        "region": _region(region),
        "period": {"years": year, "months": months},
    }
    lines = [f"{key}: {_flow(value)}\n" for key, value in head.items()]
    product = f"  {preset}: {{sensor: {preset}}}\n"
    sources = _MODELS[preset] + _TRENDS % {"name": shlex.quote(name)} if is_model else product
    text = "".join(lines) + "sources:\n" + sources
    ground = _config(text).region
    outline = None if ground is None else ground.geometry()
    if outline is not None and outline.bounds[1] + outline.bounds[3] < 0:
        if preset in _NORTHERN:
            raise ConfigError(
                f"{preset} takes elevation from ArcticDEM, which has none south of the equator; got {region!r}. Start from another "
                "product, such as sentinel2."
            )
        text = text.replace("EPSG:3413", "EPSG:3031", 1)
    _config(text).recipe()
    return text


def _config(text: str) -> CubeConfig:
    return validate_config(CubeConfig, parse_yaml(text, name="The cube to start from"))


def _region(text: str) -> dict[str, Any]:
    """Return the region of a config that a text names."""
    parts = text.replace(",", " ").split()
    try:
        bbox = [float(part) for part in parts]
    except ValueError:
        return {"cell": text} if re.fullmatch(r"r-?\d+c-?\d+", text) else {"file": absolute(text)}
    if len(bbox) != 4:
        raise ConfigError(f"A region is west,south,east,north in degrees, a cell, or the path of a file; got {text!r}.")
    return {"bbox": bbox}


def _flow(value: object) -> str:
    """Return a value as YAML on one line."""
    return str(yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)).split("\n")[0]


_SOURCES = {"relativeelevation": "relative_elevation", "absoluteelevation": "dem"}
"""Spellings of data sources that are not those of layers."""
_ALL_SOURCES = ("ndvi", "planet", "relative_elevation", "slope", "tcvis")
_BCE = "SoftBCEWithLogitsLoss"
_LOSSES = {name.lower(): name for name in ("JaccardLoss", "DiceLoss", "FocalLoss", "LovaszLoss", _BCE)}
_LOSSES |= {"binarycrossentropy": _BCE, "bceloss": _BCE}
"""Losses in any case of theirs, by the name that they have here."""
_SCHEDULES = {"StepLR": {"step_size": 10, "gamma": 0.1}, "ExponentialLR": {"gamma": 0.9}}
"""Options of their schedules that say nothing themselves."""
_AUGMENTATIONS = (
    "HorizontalFlip",
    "VerticalFlip",
    "RandomRotate90",
    "Blur",
    "RandomBrightnessContrast",
    "MultiplicativeNoise",
)
_LEFT = {
    "data_threads": "left out: it says nothing about the result; give rtsx train --workers instead",
    "visualization_tiles": "left out: the report shows tiles that it chooses itself",
    "resume": "left out: the same command resumes a training that was stopped",
    "run_info": "left out: a bundle says itself when and by what it was made",
    "norm_factors": "left out: the scaling is that of the preset tss-v1; what is stored is wrong for ndvi",
    "modelscale": "left out: the number of channels follows from the encoder",
    "input_channels": "left out: the number of channels follows from the layers",
}
_TILE = 256
"""Side of the tiles that the predecessor's data preparation cuts, px."""


@dataclass(frozen=True, kw_only=True)
class ImportedTraining:
    """A config of ours, and what the reader has to know about it."""

    text: str
    """YAML that `load_train_config` reads, with the notes as its first comment."""
    notes: tuple[str, ...]
    """What was changed, left out or assumed, one sentence each, beginning with the key."""


def import_training(
    path: str | PathLike[str], *, cubes: str = "cubes/{scene}.zarr", labels: str = "labels/{scene}.gpkg"
) -> ImportedTraining:
    """Translate the YAML of a training with thaw-slump-segmentation, or the config.yml beside its checkpoints.

    Parameters
    ----------
    path
        The file.
    cubes, labels
        Where the cube and the outlines of a scene are; its name stands for ``{scene}``. The predecessor says so nowhere: it
        finds tiles that it has prepared by the names of scenes.

    Raises
    ------
    ConfigError
        It cannot be read, is no such config, or says what cannot be.
    """
    from rtsx.config.training import TrainConfig  # here, because a cube that is started from does not wait for it

    document = read_yaml(path)
    _refuse_others(document)
    notes: list[str] = []
    given = dict(document.values)
    values: dict[str, Any] = {"id": _id(Path(path)), "classes": ["thaw_slump"]}
    phases = _phases(given, notes)
    values |= _model(given, notes) | _inputs(given, notes) | {"tile": _TILE}
    values |= _scenes(given, phases, notes, cubes=cubes, labels=labels)
    values |= _loss(given, phases, notes)
    values |= _optimisation(given, notes)
    values["epochs"] = sum(phase.epochs for phase in phases) or TrainConfig.model_fields["epochs"].default
    unknown = "left out, because it is no key of the predecessor's that is known here"
    notes += [f"{key}: {_LEFT.get(key, unknown)}" for key in given]
    text = _commented(notes, source=Path(path).name) + dump_yaml(values)
    # Read as everybody will read it, so that nothing is written that cannot be loaded.
    validate_config(TrainConfig, parse_yaml(text, name=f"{path} (translated)"))
    return ImportedTraining(text=text, notes=tuple(notes))


@dataclass(frozen=True)
class _Phase:
    """One phase of a schedule."""

    epochs: int
    loss: object
    """Loss of the phase; None for the config's."""
    trains_on: tuple[str, ...]
    validates_on: tuple[str, ...]
    only_slumps: bool
    """Whether tiles without slumps were left out."""


def _refuse_others(document: Document) -> None:
    values = document.values
    if not isinstance(values, Mapping) or "datasets" not in values or "model" not in values:
        found = ", ".join(map(str, values)) if isinstance(values, Mapping) else type(values).__name__
        raise ConfigError(
            f"{document.name} is no training config of thaw-slump-segmentation, which has at least model and datasets; it has "
            f"{found or 'nothing'}."
        )


def _id(path: Path) -> str:
    return path.parent.resolve().name if path.stem == "config" and path.parent.name else path.stem


def _phases(given: dict[str, Any], notes: list[str]) -> list[_Phase]:
    phases = []
    for number, phase in enumerate(given.pop("schedule", None) or (), 1):
        name = phase.get("phase", number)
        train: list[str] = []
        validate: list[str] = []
        only_slumps = False
        for step in phase.get("steps", ()):
            command, what = next(iter(step.items())) if isinstance(step, Mapping) else (step, None)
            if command == "train_on":
                inner = str(what).removeprefix("slump_tiles(").removesuffix(")")
                only_slumps |= inner != str(what)
                train.append(inner)
            elif command == "validate_on":
                validate.append(str(what))
            else:
                notes.append(f"schedule, phase {name}: {command} is left out; the report has samples and curves")
        known = {"phase", "epochs", "steps", "loss_function"}
        notes += [
            f"schedule, phase {name}: {key} is left out; it is no key that is known here" for key in set(phase) - known
        ]
        phases.append(
            _Phase(int(phase.get("epochs", 0)), phase.get("loss_function"), tuple(train), tuple(validate), only_slumps)
        )
    if not phases:
        notes.append("schedule: there was none, so that the number of epochs is the usual one here")
    if len(phases) > 1:
        notes.append(f"schedule: {len(phases)} phases became one training of as many epochs")
    return phases


def _model(given: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    model = given.pop("model")
    model = {"architecture": model} if isinstance(model, str) else dict(model)
    known = {name.lower(): name for name in ARCHITECTURES}
    named = str(model.pop("architecture", "Unet"))
    made: dict[str, Any] = {"architecture": known.get(named.lower())}
    if made["architecture"] is None:
        made["architecture"] = "UnetPlusPlus"
        notes.append(
            f"model.architecture: {named} is not among {', '.join(ARCHITECTURES)}; UnetPlusPlus stands in its place"
        )
    made["encoder"] = model.pop("encoder", "resnet34")
    weights = model.pop("encoder_weights", "random")
    if weights not in ("random", None):
        made["encoder_weights"] = weights
    model.pop("input_channels", None)  # follows from the layers, as it did there
    notes += [f"model.{key}: left out, because it is no key that is known here" for key in model]
    return {"model": made}


def _inputs(given: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    named = given.pop("data_sources", None)
    if named is None:
        named = list(_ALL_SOURCES)
        notes.append("data_sources: there were none, which meant all ten layers")
    sources = sorted(_SOURCES.get(str(source).lower(), str(source).lower()) for source in named)
    layers: list[str] = []
    for source in sources:
        try:
            found = canonical_layers([source])
        except BundleError:
            notes.append(f"data_sources: {source} is left out, because no layer here is called so")
            continue
        if unscaled := [layer for layer in found if layer not in PRESETS["tss-v1"].scaling]:
            notes.append(
                f"data_sources: {source} is left out, because the preset tss-v1 has no scaling for {', '.join(unscaled)}"
            )
            continue
        if source == "sentinel2":
            notes.append(
                "data_sources: the bands of Sentinel2 are scaled as reflectance / 0.3; cubes have to give reflectance"
            )
        layers += [layer for layer in found if layer not in layers]
    if not layers:
        raise ConfigError(
            f"No data source of {named} is a layer that is known here; known are {', '.join(_ALL_SOURCES)}."
        )
    return {"inputs": {"preset": "tss-v1", "layers": layers}}


def _scenes(
    given: dict[str, Any], phases: list[_Phase], notes: list[str], *, cubes: str, labels: str
) -> dict[str, Any]:
    datasets = {str(name): dict(dataset) for name, dataset in given.pop("datasets").items()}
    trained = _named(datasets, [name for phase in phases for name in phase.trains_on], usual="train")
    validated_on = _named(datasets, [name for phase in phases for name in phase.validates_on], usual="val")
    validated_on = [name for name in validated_on if name not in trained]
    tested = [name for name in datasets if name == "test" and name not in trained + validated_on]
    if not trained:
        raise ConfigError(
            f"Nothing says which of the datasets {', '.join(datasets)} is trained on; call one of them train."
        )
    notes += [
        f"datasets.{name}: left out, because no step of the schedule used it"
        for name in datasets
        if name not in trained + validated_on + tested
    ]
    sets: dict[str, Any] = {}
    augment: list[str] = []
    for label, names in (("training", trained), ("validation", validated_on), ("test", tested)):
        listed: list[str] = []
        for name in names:
            listed += _scenes_of(name, datasets[name], notes)
            found = _augment(name, datasets[name], notes)
            augment += [one for one in found if one not in augment] if label == "training" else []
        if listed:
            sets[label] = {"cube": cubes, "labels": labels, "names": list(dict.fromkeys(listed))}
    notes.append(f"datasets: cubes are expected at {cubes} and outlines at {labels}; change these paths to yours")
    made: dict[str, Any] = {"scenes": sets}
    if phases and all(phase.only_slumps for phase in phases):
        made["sampling"] = {"negatives": 0}
    else:
        notes.append(
            "sampling: tiles without slumps are drawn one to one with tiles that have some, where the predecessor showed each "
            "tile once an epoch; set sampling.negatives for more"
        )
        if any(phase.only_slumps for phase in phases):
            notes.append(
                "schedule: slump_tiles(...) is left out; sampling.negatives with final_negatives is a gentler way"
            )
    return made | ({"augment": augment} if augment else {})


def _named(datasets: Mapping[str, Any], used: list[str], *, usual: str) -> list[str]:
    names = list(dict.fromkeys(used)) or [name for name in datasets if name == usual]
    if unknown := [name for name in names if name not in datasets]:
        raise ConfigError(f"The schedule uses the dataset {unknown[0]}, but there are {', '.join(datasets)}.")
    return names


def _scenes_of(name: str, dataset: dict[str, Any], notes: list[str]) -> list[str]:
    scenes = [str(scene) for key in ("scenes", "folders") for scene in dataset.get(key) or ()]
    for key, value in dataset.items():
        if key == "batch_size":
            notes.append(f"datasets.{name}.batch_size: left out; all sets have the batch size of the config")
        elif key == "shuffle":
            if value is False and name.startswith("train"):
                notes.append(f"datasets.{name}.shuffle: left out; training tiles are always drawn in another order")
        elif key not in ("scenes", "folders", "augment", "augment_types"):
            notes.append(f"datasets.{name}.{key}: left out, because it is no key that is known here")
    if not scenes:
        notes.append(f"datasets.{name}: it names no scenes")
    return scenes


def _augment(name: str, dataset: Mapping[str, Any], notes: list[str]) -> list[str]:
    if not dataset.get("augment"):
        return []
    types = [str(one) for one in dataset.get("augment_types") or ()]
    if not types:
        types = ["HorizontalFlip", "VerticalFlip", "RandomRotate90"]
        notes.append(f"datasets.{name}.augment: no types were named; flips and quarter turns are taken")
    unknown = [one for one in types if one not in _AUGMENTATIONS]
    notes += [f"datasets.{name}.augment_types: {one} is left out, because there is none here" for one in unknown]
    if name.startswith("train"):
        notes.append(
            f"datasets.{name}.augment_types: what is named runs here; some versions of the predecessor ignored it"
        )
    else:
        notes.append(f"datasets.{name}.augment: left out if it is evaluated on; only training tiles are changed")
    return [one for one in types if one in _AUGMENTATIONS]


def _loss(given: dict[str, Any], phases: list[_Phase], notes: list[str]) -> dict[str, Any]:
    usual = given.pop("loss_function", None)
    losses = [phase.loss if phase.loss is not None else usual for phase in phases] or [usual]
    longest = losses[max(range(len(losses)), key=lambda place: phases[place].epochs if phases else 0)]
    if any(loss != longest for loss in losses):
        notes.append(f"loss_function: phases had several; that of the longest is taken, {_loss_name(longest)}")
    if longest is None:
        raise ConfigError("Nothing says which loss_function was minimised; name it in the config or in the phases.")
    options = {key: value for key, value in longest.items() if key != "type"} if isinstance(longest, Mapping) else {}
    name = _LOSSES.get(_loss_name(longest).lower())
    if name is None:
        raise ConfigError(f"The loss {_loss_name(longest)} is not among {', '.join(sorted(set(_LOSSES.values())))}.")
    kept = {key: value for key, value in options.items() if (name, key) == (_BCE, "pos_weight")}
    notes += [f"loss_function.{key}: left out, because {name} takes none here" for key in options if key not in kept]
    notes.append(
        "loss_function: the sigmoid is applied once; versions of the predecessor that applied it twice learnt otherwise"
    )
    return {"loss": {name: kept} if kept else name}


def _loss_name(loss: object) -> str:
    return str(loss.get("type")) if isinstance(loss, Mapping) else str(loss)


def _optimisation(given: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = {"optimiser": "AdamW"}
    for key in ("batch_size", "learning_rate"):
        if key in given:
            made[key] = given.pop(key)
    named = given.pop("learning_rate_scheduler", None)
    stated = {key: given.pop(f"lr_{key}", None) for key in ("step_size", "gamma")}
    usual = _SCHEDULES.get(str(named), {})
    options = {key: value if stated[key] is None else stated[key] for key, value in usual.items()}
    made["schedule"] = {named: options} if usual else "constant"
    if named is not None and not usual:
        notes.append(f"learning_rate_scheduler: {named} is left out; the predecessor knew StepLR and ExponentialLR")
    unused = [key for key, value in stated.items() if value is not None and key not in usual]
    notes += [f"lr_{key}: left out; the schedule has no use for it" for key in unused]
    return made


def _commented(notes: list[str], *, source: str) -> str:
    lines = [f"# Translated from {source} of thaw-slump-segmentation by: rtsx config import"]
    for note in notes:
        lines += textwrap.wrap(note, 110, initial_indent="# - ", subsequent_indent="#   ")
    return "\n".join(lines) + "\n"
