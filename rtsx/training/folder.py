"""The folder of a training: what lies in it, and which of its states it is in."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rtsx.errors import OutputExistsError, OutputNotWritableError, TrainingError
from rtsx.storage import is_url, local_path, write_whole
from rtsx.training.record import differences

__all__ = ["RunFolder"]

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


@dataclass(frozen=True)
class RunFolder:
    """Where a training keeps everything. The recipe is written first and the result last, so both can be relied on."""

    path: Path
    """The folder."""

    @classmethod
    def at(cls, place: str | Path) -> Self:
        """The folder of a local path; URLs are refused, because checkpoints rely on renaming."""
        if is_url(str(place)):
            raise TrainingError(
                f"A training needs a local folder; got {place}. Copy the bundle from there when it is done."
            )
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
        held = sorted(each.name for each in self.path.iterdir() if each.suffix != ".partial")
        if held and not self.recipe.is_file():
            raise OutputExistsError(
                f"{self.path} holds {held[:5]} and no training of rtsx, so nothing is written there. Choose another folder."
            )
        if self.result.is_file() and not overwrite:
            raise OutputExistsError(
                f"{self.path} holds a finished training. Choose another folder, pass overwrite=True, or read it with read_run."
            )
        strange = sorted(set(held) - {*_OWN, self.recipe.name})
        if overwrite and strange:
            raise OutputExistsError(f"{self.path} holds more than a training: {strange[:5]}. Move that away first.")

    def begin(self, record: Mapping[str, object], *, overwrite: bool) -> str:
        """Make the folder this recipe's, or find that it is, and return the recipe's digest.

        Raises
        ------
        TrainingError
            Another recipe's training is there; the message names what differs.
        OutputNotWritableError
            The place cannot be written.
        """
        text = json.dumps(record, indent=1, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        try:
            if overwrite and self.recipe.is_file():
                self._clear()
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            if not self.recipe.is_file():
                write_whole(self.recipe, text.encode())
        except OSError as error:
            raise OutputNotWritableError(f"A training cannot be kept in {self.path}: {error}.") from error
        there = json.loads(self.recipe.read_text())
        if there != json.loads(text):
            lines = list(differences(there, json.loads(text)))
            more = f", and {len(lines) - 5} more" if len(lines) > 5 else ""
            raise TrainingError(
                f"{self.path} holds an unfinished training of another recipe: {'; '.join(lines[:5])}{more}. Go on with that "
                "recipe, choose another folder, or pass overwrite=True."
            )
        return digest

    def finish(self, result: Mapping[str, Any]) -> None:
        """Say that the training is done: the last thing that is written."""
        write_whole(self.result, json.dumps(result, indent=1, sort_keys=True).encode())

    def _clear(self) -> None:
        # The recipe last, because without it the rest would be nobody's.
        self.result.unlink(missing_ok=True)
        for name in _OWN:
            held = self.path / name
            if held.is_dir():
                shutil.rmtree(held)
            else:
                held.unlink(missing_ok=True)
        self.recipe.unlink()
