"""The exceptions of rtsx; each is also the built-in that a caller would expect.

Every message says what was expected, what came, and what to do. The command line prints the message alone and exits
with status 2; anything that is not an `RtsxError` is a defect of ours and keeps its traceback.
"""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rtsx.redaction import redacted

__all__ = [
    "BundleError",
    "CampaignError",
    "ClusterError",
    "ConfigError",
    "CubeError",
    "EvaluationError",
    "FootprintError",
    "GridError",
    "InputNotFoundError",
    "LabelDateWarning",
    "LabelError",
    "LayerValuesWarning",
    "MemoryPlanError",
    "MissingCoverageWarning",
    "MissingExtraError",
    "NoImageError",
    "OrderError",
    "OrderNotFoundError",
    "OutputExistsError",
    "OutputNotWritableError",
    "PixelSizeWarning",
    "PlanError",
    "ReviewError",
    "RtsxError",
    "TrainingError",
    "TruthWarning",
    "UntrustedModelError",
]


class RtsxError(Exception):
    """Any error that rtsx raises on purpose; its text is `redacted`.

    It comes from another process as it was raised there. What is behind it comes, too; where that cannot be unpickled, as many
    errors of compiled libraries, its text does.

    Examples
    --------
    >>> import pickle
    >>> error = pickle.loads(pickle.dumps(CubeError("No layer 'red'.")))
    >>> type(error).__name__, str(error)
    ('CubeError', "No layer 'red'.")
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(redacted(one) if isinstance(one, str) else one for one in args))

    def __reduce__(self) -> tuple[Any, ...]:
        """Replace what cannot travel, here and now, because some picklers read cause and context past this."""
        if self.__context__ is not None:
            self.__context__ = _travelling(self.__context__)
        if self.__cause__ is not None:
            self.__cause__ = _travelling(self.__cause__)
        args = tuple(one if _restores(one) else str(one) for one in self.args)
        state = {name: value for name, value in vars(self).items() if _restores(value)}
        return _restored, (type(self), args, (state, self.__cause__))


def _restored(
    kind: type[RtsxError], args: tuple[Any, ...], rest: tuple[dict[str, Any], BaseException | None]
) -> RtsxError:
    """Return an error, even one whose `__init__` wants other arguments than it keeps."""
    try:
        error = kind(*args)
    except TypeError:
        error = kind.__new__(kind, *args)
    state, cause = rest
    vars(error).update(state)
    if cause is not None:
        error.__cause__ = cause
    return error


def _travelling(cause: BaseException) -> BaseException:
    """Return an error, or its text where it cannot be unpickled."""
    return cause if _restores(cause) else RuntimeError(f"{type(cause).__module__}.{type(cause).__qualname__}: {cause}")


def _restores(value: object) -> bool:
    try:
        pickle.loads(pickle.dumps(value))
    except Exception:  # whatever a foreign class raises
        return False
    return True


class GridError(RtsxError, ValueError):
    """A grid or cell that does not exist or cannot be built."""


class CubeError(RtsxError, ValueError):
    """A cube, layer or source that cannot be used as asked."""


class NoImageError(CubeError):
    """Ground of which a required source has no image."""


class ConfigError(RtsxError, ValueError):
    """A config file that cannot be read, or that says what cannot be."""


class BundleError(RtsxError, ValueError):
    """A model that cannot be read, described or run as asked."""


class UntrustedModelError(BundleError):
    """A model file that could run code of its author when read, and that the caller has not said to trust."""


class PlanError(RtsxError, ValueError):
    """A tiling that cannot give a right result, such as an overlap that is not below the tile."""


class MemoryPlanError(RtsxError, MemoryError):
    """A plan whose estimated memory is above what the worker has."""


class FootprintError(RtsxError, ValueError):
    """Footprints that cannot be extracted or are not what `validate_footprints` expects."""


class LabelError(RtsxError, ValueError):
    """Labels that cannot be read, repaired or brought onto a grid."""


class TrainingError(RtsxError, RuntimeError):
    """A training that cannot start or go on, such as one without a positive pixel or with a loss that is NaN."""


class EvaluationError(RtsxError, ValueError):
    """Predictions and truth that cannot be compared as asked."""


class CampaignError(RtsxError, RuntimeError):
    """A campaign that cannot be planned, run or read as asked, or that stopped before its last cell."""


class ReviewError(RtsxError, ValueError):
    """A review that cannot be planned, served or merged as asked, or verdicts that do not fit it."""


class ClusterError(RtsxError, ConnectionError):
    """A cluster that cannot be reached, was lost, or whose workers cannot run what they are asked to."""


class OrderError(RtsxError, RuntimeError):
    """An order that cannot be planned, placed or fetched as asked."""


class OrderNotFoundError(OrderError):
    """An order that the provider does not know, as one of another account; others may be asked for."""


class PathError(RtsxError, ValueError):
    """A path that means nothing here: not in UTF-8, with a NUL, or relative to a working folder that is gone."""


class InputNotFoundError(RtsxError, FileNotFoundError):
    """A path to read from that holds nothing."""


class OutputExistsError(RtsxError, FileExistsError):
    """An output path that already holds something."""


class OutputNotWritableError(RtsxError, PermissionError):
    """An output path that cannot be written."""


class MissingExtraError(RtsxError, ImportError):
    """An optional library that is not installed; the message names the extra that brings it."""


@contextmanager
def require_extra(message: str) -> Iterator[None]:
    """Raise `MissingExtraError` with a message where the block imports what is not installed."""
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(message) from error


class MissingCoverageWarning(UserWarning):
    """An image that could not be read and was left out, because the caller asked for gaps instead of errors."""


class LayerValuesWarning(UserWarning):
    """Layers whose values are likely to be scaled in another way than a model has learnt, or to hold undeclared nodata."""


class LabelDateWarning(UserWarning):
    """Dates of labels that cannot be read or cannot be, and were left empty; or that are of other years than the images."""


class TruthWarning(UserWarning):
    """A truth of which scores say less than they seem to."""


class PixelSizeWarning(UserWarning):
    """A cube whose pixels are much larger or smaller on the ground than those that a model has learnt."""


class EnsembleWarning(UserWarning):
    """Models whose mean is taken, and which have chosen other thresholds or outlines each."""
