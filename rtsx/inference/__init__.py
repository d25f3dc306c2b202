"""Apply a bundle to a cube: one kernel, a dask driver, and drivers for arrays in memory and for a cell of a campaign."""

from typing import TYPE_CHECKING

from rtsx.names import lazy

if TYPE_CHECKING:
    from rtsx.inference.plan import Block, BlockPlan, PredictionPlan
    from rtsx.inference.predict import predict_cube

__getattr__ = lazy(__name__)
