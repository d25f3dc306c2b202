"""A scene to be judged: what was predicted and what is there."""

from dataclasses import dataclass

import geopandas as gpd
import xarray as xr

from rtsx.errors import EvaluationError
from rtsx.labels import Truth

__all__ = ["JudgedScene"]


@dataclass(frozen=True, kw_only=True, eq=False)
class JudgedScene:
    """One ground at one time, twice: as predicted and in truth. Nothing is read before it is judged.

    Raises
    ------
    EvaluationError
        Prediction or truth are of a kind that cannot be judged.
    """

    name: str
    """Tells the scene from the others; the unit that intervals are drawn from."""
    region: str = ""
    """What scores are summed over beside the whole."""
    prediction: xr.Dataset | gpd.GeoDataFrame
    """What `predict_cube` returns, or what is opened from where it was written; or footprints."""
    truth: Truth | xr.DataArray | gpd.GeoDataFrame
    """On the pixels of the prediction: a `Truth`, or an integer raster (y, x) with its CRS, coded like one: 0 nothing, k the
    k-th class of the prediction, 255 where nobody can tell. Or polygons in any CRS, which every pixel whose centre they
    hold belongs to; polygons are the only truth of footprints."""

    def __post_init__(self) -> None:
        """Refuse kinds that do not go together."""
        if not isinstance(self.prediction, xr.Dataset | gpd.GeoDataFrame):
            raise EvaluationError(
                f"The prediction of scene {self.name!r} is a Dataset as predict_cube returns it, or a GeoDataFrame of "
                f"footprints, not {type(self.prediction).__name__}."
            )
        if isinstance(self.prediction, gpd.GeoDataFrame) and not isinstance(self.truth, gpd.GeoDataFrame):
            raise EvaluationError(
                f"Footprints are judged by polygons, but the truth of scene {self.name!r} is "
                f"{type(self.truth).__name__}: judge the prediction that the footprints are from instead."
            )
