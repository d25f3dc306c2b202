"""Prediction of the window that somebody looks at: bounded, part by part, and stopped at any time."""

import math
from collections.abc import Callable, Iterator, Mapping
from threading import Event, Thread
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from pyproj import Transformer

from rtsx.cube import geobox_of
from rtsx.errors import CubeError, RtsxError
from rtsx.inference import predict_cube
from rtsx.viewer.pyramid import Box, Pyramid

if TYPE_CHECKING:
    from rtsx.model import ModelBundle

__all__ = ["LivePrediction"]

_LARGEST = 1 << 24
"""Pixels of a window that is predicted at once: some seconds to some minutes of a CPU."""


class LivePrediction:
    """The prediction of one window, in a thread of its own.

    Its numbers are those of `predict_cube` of the whole image: tiles lie where they would, and the ground around the window is read.
    """

    def __init__(
        self,
        image: Pyramid,
        bundle: "ModelBundle",
        *,
        box: Box,
        crs: str,
        select: Mapping[str, int],
        on_progress: Callable[[int, int, str | None], None],
    ) -> None:
        """Prepare; nothing is read.

        Parameters
        ----------
        image
            Is predicted at full resolution.
        bundle
            The model.
        box
            What is seen; what is beyond the image is left out.
        crs
            Of the box.
        select
            Place along `time`, such as ``{"time": 0}``; the last if left out.
        on_progress
            Called in the thread with parts that are done, all parts, and what went wrong.
        """
        self.image, self.bundle, self.select, self.on_progress = image, bundle, select, on_progress
        self.box: Box = Transformer.from_crs(crs, image.crs, always_xy=True).transform_bounds(*box)
        self.result: xr.Dataset | None = None
        """Prediction of the window, in memory; nodata where it is not done yet. None before the first part."""
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="rtsx-predict", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the part under way."""
        self._stopped.set()

    def join(self) -> None:
        """Wait until it is done or stopped."""
        self._thread.join()

    def _run(self) -> None:
        try:
            self._predict()
        except RtsxError as error:
            self.on_progress(0, 1, str(error))
        except Exception as error:  # of torch and of whatever reads the image: shown to the reader, whose page goes on
            self.on_progress(0, 1, f"{type(error).__name__}: {error}")

    def _predict(self) -> None:
        cube = self.image.cube
        if "time" in cube.dims:
            cube = cube.isel(time=self.select.get("time", -1))
        rows, columns = self._window(cube)
        predicted = predict_cube(cube, self.bundle).isel(y=rows, x=columns)
        self.result = _blank(predicted)
        parts = list(_parts(predicted))
        for number, (y, x) in enumerate(parts, start=1):
            if self._stopped.is_set():
                self.on_progress(number - 1, len(parts), "stopped")
                return
            done = predicted.isel(y=y, x=x).compute()
            for name, values in done.data_vars.items():
                self.result[name].values[..., y, x] = values.values
            self.on_progress(number, len(parts), None)

    def _window(self, cube: xr.Dataset) -> tuple[slice, slice]:
        geobox = geobox_of(cube)
        (left, top), (right, bottom) = (
            ~geobox.affine * corner for corner in ((self.box[0], self.box[3]), (self.box[2], self.box[1]))
        )
        rows = slice(max(0, math.floor(top)), min(geobox.shape[0], math.ceil(bottom)))
        columns = slice(max(0, math.floor(left)), min(geobox.shape[1], math.ceil(right)))
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if height <= 0 or width <= 0:
            raise CubeError("Nothing of the image is in this window. Move the map over it.")
        if height * width > _LARGEST:
            raise CubeError(
                f"This window has {height:,} x {width:,} pixels; at most {_LARGEST:,} are predicted at once. Zoom in, or predict all "
                "of it with rtsx predict."
            )
        return rows, columns


def _blank(predicted: xr.Dataset) -> xr.Dataset:
    """Room for a prediction, in which nothing is known yet."""
    made = {}
    for name, layer in predicted.data_vars.items():
        fill = False if layer.dtype.kind == "b" else layer.attrs.get("_FillValue", np.nan)
        made[name] = layer.copy(data=np.full(layer.shape, fill, layer.dtype))
    return predicted.assign(made)


def _parts(predicted: xr.Dataset) -> Iterator[tuple[slice, slice]]:
    """Windows of its chunks, so that each is shown when it is done."""
    lengths = [predicted.chunksizes.get(dim, (predicted.sizes[dim],)) for dim in ("y", "x")]
    spans = [[slice(sum(sizes[:place]), sum(sizes[: place + 1])) for place in range(len(sizes))] for sizes in lengths]
    for y in spans[0]:
        for x in spans[1]:
            yield y, x
