"""A recipe as JSON: what a run's folder keeps of it, and by which it is told from another."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np

from rtsx.cube import geobox_of, layer_names, packing
from rtsx.cube.georeference import crs_name
from rtsx.parsing import differences
from rtsx.training.recipe import TrainingRecipe, TrainingScene

_ROLES = ("training", "validation", "test")


def recipe_record(recipe: TrainingRecipe) -> dict[str, object]:
    """Everything that a training's result depends on, as JSON values, with digests in place of the scenes' data.

    Reads one tile of each scene, and the file of the encoder's weights where there is one. `provenance` is left out: it changes
    no answer.
    """
    record = {
        name: _plain(getattr(recipe, name))
        for name in (field.name for field in fields(recipe))
        if name not in {*_ROLES, "provenance"}
    }
    weights = recipe.network.encoder_weights
    if weights is not None:
        from rtsx.training.networks import check_encoder_weights, is_file  # here, because it loads torch

    if weights is not None and is_file(weights):
        check_encoder_weights(recipe.network)
        with Path(weights).open("rb") as file:
            record["encoder_weights_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    scenes = {role: [_scene_record(scene, side=recipe.tile) for scene in getattr(recipe, role)] for role in _ROLES}
    return record | scenes


def stated_differences(old: object, new: object) -> str:
    """The first places where two records differ, and how many more there are; empty where there is none.

    Examples
    --------
    >>> stated_differences({"seed": 0, "network": {"encoder": "a"}}, {"seed": 1, "network": {"encoder": "a"}})
    'seed: 0 there, 1 here'
    """
    lines = [f"{place}: {_short(there)} there, {_short(here)} here" for place, there, here in differences(old, new)]
    return "; ".join(lines[:5]) + (f", and {len(lines) - 5} more" if len(lines) > 5 else "")


def _plain(value: object) -> object:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(inner) for inner in value]
    return value.item() if isinstance(value, np.generic) else value


def _scene_record(scene: TrainingScene, *, side: int) -> dict[str, object]:
    geobox = geobox_of(scene.cube)
    names = layer_names(scene.cube)
    return {
        "name": scene.name,
        "group": scene.group,
        # Digested once more, because a truth's own digest may be as long as it likes.
        "truth": hashlib.sha256(scene.truth.digest.encode()).hexdigest(),
        "shape": list(scene.truth.shape),
        "crs": crs_name(geobox.crs),
        "transform": [float(number) for number in geobox.affine[:6]],
        "layers": {
            name: {"dtype": str(scene.cube[name].dtype), **_plain_packing(scene, name)} for name in sorted(names)
        },
        "has_mask": "valid" in scene.cube,
        "middle": _digest_of_middle(scene, side=side),
    }


def _plain_packing(scene: TrainingScene, name: str) -> dict[str, object]:
    # NaN as a word, because JSON has none and it is not equal to itself.
    return {
        key: "nan" if isinstance(value, float) and np.isnan(value) else value
        for key, value in packing(scene.cube[name]).items()
    }


def _digest_of_middle(scene: TrainingScene, *, side: int) -> str:
    """sha256 of all layers in a window in the middle of a scene: tells other imagery on the same grid without reading it all."""
    window = {}
    for axis, length in zip(("y", "x"), scene.truth.shape, strict=True):
        start = max((length - side) // 2, 0)
        window[axis] = slice(start, start + side)
    names = sorted((*layer_names(scene.cube), *(("valid",) if "valid" in scene.cube else ())))
    seen = scene.cube[names].isel(window).compute(scheduler="synchronous")
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"\0{name}\0".encode())
        digest.update(np.ascontiguousarray(seen[name].values).tobytes())
    return digest.hexdigest()


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
