"""Pictures of a cross-validation and of a reviewed sample."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rtsx.errors import MissingExtraError
from rtsx.storage import staged

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SCORES = {"iou": "IoU", "f1": "F1", "object_f1": "object F1"}


def check_drawable() -> None:
    """Refuse before anything is trained what could not be drawn afterwards.

    Raises
    ------
    MissingExtraError
        There is no matplotlib.
    """
    try:
        import matplotlib as mpl  # noqa: F401  # of the extra `view`, which only pictures need
    except ImportError as error:
        raise MissingExtraError(
            "Pictures are drawn with matplotlib, which is not installed. Install it with pip install 'rtsx[view]', or leave "
            "them out with plot=False."
        ) from error


def draw_regions(table: pd.DataFrame, path: Path) -> None:
    """Draw IoU, F1 and object F1 of every region with their intervals into a PNG file.

    Parameters
    ----------
    table
        Rows of one class and of one way of training, as in `CrossValidation.table`.
    path
        The file.
    """
    figure = _figure((max(6.0, 1.1 * len(table) + 2), 4.2))
    axis = figure.subplots()
    middle = np.arange(len(table))
    width = 0.8 / len(_SCORES)
    for number, (name, label) in enumerate(_SCORES.items()):
        values = table[name].to_numpy(float)
        reach = [np.nan_to_num(np.abs(values - table[f"{name}_{end}"].to_numpy(float))) for end in ("low", "high")]
        places = middle + (number - (len(_SCORES) - 1) / 2) * width
        axis.bar(places, np.nan_to_num(values), width, yerr=reach, label=label, capsize=2, error_kw={"linewidth": 1})
    axis.set_xticks(middle, [str(name) for name in table["region"]], rotation=20, ha="right")
    axis.set_ylim(0, 1)
    axis.set_ylabel("score, with 95 % interval over scenes")
    axis.grid(axis="y", linewidth=0.4)
    axis.legend(ncols=len(_SCORES), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    with staged(path, overwrite=True) as draft:
        figure.savefig(draft, metadata={"Software": "rtsx"})


def draw_matrix(matrix: pd.DataFrame, path: Path, *, score: str) -> None:
    """Draw a transfer matrix into a PNG file; what was not tested stays white."""
    figure = _figure((1.1 * matrix.shape[1] + 3.5, 0.6 * matrix.shape[0] + 2))
    axis = figure.subplots()
    values = matrix.to_numpy(float)
    image = axis.imshow(np.ma.masked_invalid(values), vmin=0, vmax=1, cmap="viridis")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", color="black" if value > 0.6 else "white")
    axis.set_xticks(range(matrix.shape[1]), [str(name) for name in matrix.columns], rotation=20, ha="right")
    axis.set_yticks(range(matrix.shape[0]), [str(name) for name in matrix.index])
    axis.set_xlabel("tested on")
    axis.set_ylabel("trained on")
    figure.colorbar(image, ax=axis, label=score, shrink=0.8)
    with staged(path, overwrite=True) as draft:
        figure.savefig(draft, metadata={"Software": "rtsx"})


def draw_estimates(strata: pd.DataFrame, path: Path, *, confidence: float) -> None:
    """Draw the part of every stratum that holds the target, with its interval, into a PNG file; see `Accuracy.strata`."""
    figure = _figure((7.0, 0.35 * len(strata) + 1.4))
    axis = figure.subplots()
    middle = np.arange(len(strata))[::-1]
    axis.hlines(middle, strata["lowest"], strata["highest"], color="0.8", linewidth=6, label="unsure units either way")
    axis.hlines(middle, strata["low"], strata["high"], color="C0", label=f"{confidence:.0%} interval")
    axis.plot(strata["part"], middle, "o", color="C0")
    names = strata["stratum"].where(strata["region"] == "", strata["region"] + ", " + strata["stratum"])
    axis.set_yticks(middle, [f"{name}  (n = {n})" for name, n in zip(names, strata["reviewed"], strict=True)])
    axis.set_xlim(0, 1)
    axis.set_xlabel("part that holds the target")
    axis.grid(axis="x", linewidth=0.4)
    if strata["unsure"].any():
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    with staged(path, overwrite=True) as draft:
        figure.savefig(draft, metadata={"Software": "rtsx"})


def _figure(size: tuple[float, float]) -> "Figure":
    # Not pyplot, because that opens a window system and keeps every figure alive.
    from matplotlib.figure import Figure  # of the extra `view`

    return Figure(figsize=size, layout="constrained", dpi=110)
