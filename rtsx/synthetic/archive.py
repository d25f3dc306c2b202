"""Many scenes in one folder, made in several processes and never twice."""

import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from rtsx.errors import CubeError, OutputExistsError
from rtsx.storage import local_path, refuse_other_format, settle, stage
from rtsx.synthetic.scene import SceneFiles, write_scene
from rtsx.synthetic.spec import SceneSpec


@dataclass(frozen=True, kw_only=True)
class WrittenScene:
    """A scene that is on disk, whole."""

    files: SceneFiles
    """Where its layers lie."""
    was_made: bool
    """True where this call has made it, False where it was there."""


def write_scenes(specs: Sequence[SceneSpec], folder: str | Path, *, processes: int) -> Iterator[WrittenScene]:
    """Write scenes as `write_scene` does, `processes` at a time, and yield each as it is there.

    A scene appears with all its files or not at all, so a call that was stopped is finished by the same call. What is there
    already, whole and from the same spec, is left alone.

    Parameters
    ----------
    specs
        What to make; yielded in this order.
    folder
        Where to; created.
    processes
        Scenes that are made at the same time, each by a process of its own; 1: by this one.

    Raises
    ------
    CubeError
        Two specs would have files of the same names, or `processes` is below 1.
    OutputExistsError
        The folder holds a scene of the same name from another spec.
    """
    if processes < 1:
        raise CubeError(f"Scenes are made by at least one process; got {processes}.")
    refuse_other_format(folder, what="a folder of scenes")
    folder = local_path(folder)
    _refuse_equal_names(specs)
    missing = [spec for spec in specs if not _is_complete(spec, folder)]
    if processes == 1:
        for spec in specs:
            if spec in missing:
                _write_whole(spec, folder)
            yield WrittenScene(files=_files(spec, folder), was_made=spec in missing)
        return
    # Spawned, because a fork would inherit the threads of numerical libraries half-alive.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(1, min(processes, len(missing))), mp_context=context) as pool:
        made = {spec.image_id: pool.submit(_write_whole, spec, folder) for spec in missing}
        try:
            for spec in specs:
                if spec.image_id in made:
                    made[spec.image_id].result()
                yield WrittenScene(files=_files(spec, folder), was_made=spec.image_id in made)
        finally:
            pool.shutdown(cancel_futures=True)


def _refuse_equal_names(specs: Sequence[SceneSpec]) -> None:
    seeds: dict[str, int] = {}
    for spec in specs:
        if spec.image_id in seeds:
            raise CubeError(
                f"Seeds {seeds[spec.image_id]} and {spec.seed} give scenes of one name, {spec.image_id}. Leave one out."
            )
        seeds[spec.image_id] = spec.seed


def _files(spec: SceneSpec, folder: Path) -> SceneFiles:
    return SceneFiles.named(folder, image_id=spec.image_id, dem_resolution_m=spec.dem_resolution_m)


def _paths(files: SceneFiles) -> list[Path]:
    """All files of a scene, its description last."""
    return [getattr(files, field.name) for field in fields(files)]


def _is_complete(spec: SceneSpec, folder: Path) -> bool:
    files = _files(spec, folder)
    there = [path for path in _paths(files) if path.exists()]
    if not there:
        return False
    if not files.description.exists():
        return False  # the leavings of a move that was interrupted; they are written over
    found, wanted = json.loads(files.description.read_text()), json.loads(json.dumps(asdict(spec), default=str))
    differing = [f"{name}={found.get(name)!r}" for name in wanted if found.get(name) != wanted[name]]
    if differing:
        raise OutputExistsError(
            f"{folder} holds a scene {spec.image_id} that was made with {', '.join(differing)}. Choose another folder, or "
            "remove it."
        )
    return len(there) == len(_paths(files))


def _write_whole(spec: SceneSpec, folder: Path) -> None:
    with stage(folder / spec.image_id) as draft:
        # The description moves last, because it is what says that a scene is whole.
        for source, target in zip(_paths(write_scene(spec, draft)), _paths(_files(spec, folder)), strict=True):
            settle(source)
            source.replace(target)
