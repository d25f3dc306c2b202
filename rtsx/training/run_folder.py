"""The folder of a training: what lies in it, in which of its states it is, and its recipe as JSON, by which it is known from another."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from rtsx.cube import geobox_of, layer_names, packing
from rtsx.cube.georeference import crs_name
from rtsx.errors import OutputExistsError, OutputNotWritableError, TrainingError
from rtsx.parsing import differences, json_value
from rtsx.storage import is_url, local_path, refuse_other_format, write_whole
from rtsx.training.recipe import TrainingRecipe, TrainingScene

_ROLES = ("training", "validation", "test")


def recipe_record(recipe: TrainingRecipe) -> dict[str, object]:
    """Return everything that a training's result depends on, as JSON values, with digests in place of the scenes' data.

    Reads one tile of each scene, and the file of the encoder's weights where there is one. `provenance` is left out: it changes
    no answer.
    """
    names = [field.name for field in fields(recipe) if field.name not in {*_ROLES, "provenance"}]
    record = {name: _plain(getattr(recipe, name)) for name in names}
    weights = recipe.network.encoder_weights
    if weights is not None:
        from rtsx.training.networks import check_encoder_weights, is_file  # here, because it loads torch

        if is_file(weights):
            check_encoder_weights(recipe.network)
            with Path(weights).open("rb") as file:
                record["encoder_weights_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    scenes = {role: [_scene_record(scene, side=recipe.tile) for scene in getattr(recipe, role)] for role in _ROLES}
    return record | scenes


def stated_differences(old: object, new: object) -> str:
    """Return the first places where two records differ, and how many more there are; empty where there is none.

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
    """Return SHA-256 of all layers in a window in the middle of a scene: tells other imagery on the same grid without reading it all."""
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


_OWN = (
    "bundle",
    "checkpoints",
    "tensorboard",
    "wandb",
    "failed-batch.npz",
    "log.csv",
    "report.html",
    "result.json",
    "config.yaml",
)
"""What a training leaves, without the recipe; the last is of whoever made the recipe from a file."""
_HIDDEN = (".partial", ".previous")
"""Endings of what a killed process leaves, and of the training that it was about to replace."""


@dataclass(frozen=True)
class RunFolder:
    """Where a training keeps everything. The recipe is written first and the result last, so both can be relied on."""

    path: Path

    @classmethod
    def at(cls, place: str | Path) -> Self:
        """Return the folder of a local path; URLs are refused, because checkpoints rely on renaming."""
        if is_url(str(place)):
            raise TrainingError(
                f"A training needs a local folder; got {place}. Copy the bundle from there when it is done."
            )
        refuse_other_format(place, what="the folder of a training")
        return cls(local_path(place))

    @property
    def recipe(self) -> Path:
        """What is trained here, as JSON; its presence makes the folder a run's."""
        return self.path / "recipe.json"

    @property
    def result(self) -> Path:
        """Scores and epochs, as JSON; its presence makes the run a finished one."""
        return self.path / "result.json"

    @property
    def checkpoint(self) -> Path:
        """State after the last epoch."""
        return self.path / "checkpoints" / "last.pt"

    @property
    def bundle(self) -> Path:
        """The bundle's folder."""
        return self.path / "bundle"

    @property
    def log(self) -> Path:
        """One row an epoch."""
        return self.path / "log.csv"

    @property
    def failed_batch(self) -> Path:
        """The batch whose loss was no number, where one was."""
        return self.path / "failed-batch.npz"

    @property
    def report(self) -> Path:
        """One page for people."""
        return self.path / "report.html"

    def require_free(self, *, overwrite: bool) -> None:
        """Refuse a place that cannot take a training, whatever its recipe; changes nothing.

        Raises
        ------
        OutputExistsError
            A finished training is there and `overwrite` is False, or something that is no training.
        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise OutputExistsError(f"{self.path} is a file; a training needs a folder. Choose another path.")
        held = sorted(each.name for each in self.path.iterdir() if not each.name.endswith(_HIDDEN))
        if held and not self.recipe.is_file():
            raise OutputExistsError(
                f"{self.path} holds {held[:5]} and no training of rtsx, so nothing is written there. Choose another folder."
            )
        if self.result.is_file() and not overwrite:
            raise OutputExistsError(
                f"{self.path} holds a finished training. Choose another folder, or pass overwrite=True to begin anew."
            )
        strange = sorted(set(held) - {*_OWN, self.recipe.name})
        if overwrite and strange:
            raise OutputExistsError(f"{self.path} holds more than a training: {strange[:5]}. Move that away first.")

    @contextmanager
    def claimed(self, record: Mapping[str, object], *, overwrite: bool) -> Iterator[str]:
        """Make the folder this recipe's for the block, or find that it is; the recipe's digest.

        A training that is overwritten is set aside. Without a checkpoint after the block nothing has begun: the one that was
        set aside is back, and of the block nothing stays but the batch of a loss that is no number.

        Raises
        ------
        TrainingError
            Another recipe's training is there; the message names what differs.
        OutputExistsError
            As `require_absent`, or another process is training there.
        OutputNotWritableError
            The place cannot be written.
        """
        text = json.dumps(record, indent=1, sort_keys=True)
        with self._locked():
            self._end_claim()  # of a process that was killed
            self.require_free(overwrite=overwrite)
            with self._write_failures():
                if overwrite and self.recipe.is_file():
                    self._set_aside()
                self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
                if not self.recipe.is_file():
                    write_whole(self.recipe, text.encode())
            there = json_value(self.recipe.read_bytes(), what=str(self.recipe), error=TrainingError)
            if differing := stated_differences(there, json.loads(text)):
                raise TrainingError(
                    f"{self.path} holds an unfinished training of another recipe: {differing}. Go on with that recipe, choose "
                    "another folder, or pass overwrite=True."
                )
            try:
                yield hashlib.sha256(text.encode()).hexdigest()
            finally:
                if not self.checkpoint.is_file():
                    self._remove_own()
                self._end_claim()

    def finish(self, result: Mapping[str, Any]) -> None:
        """Say that the training is done: the last thing that is written."""
        write_whole(self.result, json.dumps(result, indent=1, sort_keys=True).encode())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from training in the folder."""
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        with self._write_failures():
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputExistsError(
                    f"Another process is training in {self.path}. Wait for it, stop it, or choose another folder."
                ) from error
            except OSError:
                pass  # a file system that knows no locks
            yield
        finally:
            os.close(handle)
            for folder in made:
                with suppress(OSError):  # not empty, as it should be
                    folder.rmdir()

    @contextmanager
    def _write_failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputNotWritableError(f"A training cannot be kept in {self.path}: {error}.") from error

    @property
    def _aside(self) -> Path:
        """The training that is overwritten, until the new one has a checkpoint."""
        return self.path / ".previous"

    @property
    def _moving(self) -> Path:
        """The same while it is moved there or back, when nothing of another training is in the folder."""
        return self.path / ".previous.partial"

    def _set_aside(self) -> None:
        self._moving.mkdir()
        for name in (*_OWN, self.recipe.name):
            if (self.path / name).exists():
                (self.path / name).rename(self._moving / name)
        self._moving.rename(self._aside)

    def _end_claim(self) -> None:
        """Remove the training that was set aside, or bring it back where the new one has no checkpoint."""
        if self._aside.is_dir() and self.checkpoint.is_file():
            shutil.rmtree(self._aside)
        elif self._aside.is_dir():
            self._remove_own()
            self._aside.rename(self._moving)
        if self._moving.is_dir():
            for held in self._moving.iterdir():
                if not (self.path / held.name).exists():
                    held.rename(self.path / held.name)
            shutil.rmtree(self._moving)

    def _remove_own(self) -> None:
        for name in {*_OWN, self.recipe.name} - {self.failed_batch.name, "config.yaml"}:
            held = self.path / name
            if held.is_dir():
                shutil.rmtree(held)
            else:
                held.unlink(missing_ok=True)
