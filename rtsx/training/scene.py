"""A scene to learn from or to be judged on: a lazy cube and its truth."""

from dataclasses import dataclass

import xarray as xr

from rtsx.cube import as_cube, validate_cube
from rtsx.errors import TrainingError
from rtsx.labels import Truth

__all__ = ["TrainingScene"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingScene:
    """One ground at one time, with what is known to be there.

    Raises
    ------
    CubeError
        The cube is none.
    TrainingError
        It has a time dimension, or truth and cube differ in size.
    """

    name: str
    """Tells the scene from the others, in logs and reports."""
    cube: xr.Dataset
    """Layers on (y, x), lazy or not, as `open_cube` gives them, perhaps with `valid`."""
    truth: Truth
    """What is where, on the pixels of the cube."""
    group: str = ""
    """Region, or whatever else must not be divided between training and test."""

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        object.__setattr__(self, "cube", as_cube(self.cube))
        validate_cube(self.cube)
        if "time" in self.cube.dims:
            raise TrainingError(
                f"Scene {self.name!r} has {self.cube.sizes['time']} times; a scene is one ground at one time. Select one with "
                "cube.isel(time=...), or make a scene of each."
            )
        size = (self.cube.sizes["y"], self.cube.sizes["x"])
        if self.truth.shape != size:
            raise TrainingError(
                f"Truth and cube of scene {self.name!r} differ in size: {self.truth.shape} and {size} px. Bring the labels "
                "onto the cube's grid."
            )
