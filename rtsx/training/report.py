"""The report of a training: one page with its curves and sample pictures, that needs nothing else."""

import base64
import html
import io
import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtsx.cube import geobox_of
from rtsx.cube.georeference import crs_name
from rtsx.labels import IGNORED
from rtsx.model import ModelBundle
from rtsx.pages import render_page
from rtsx.scores import PixelScores, calibration_error
from rtsx.storage import write_whole
from rtsx.training.dataset import TileReader
from rtsx.training.finish import TrainedModel, TrainedRun
from rtsx.training.loop import CACHE_BYTES
from rtsx.training.metrics import EpochMetrics
from rtsx.training.run_log import LogRow
from rtsx.training.sampler import TileAddress, TrainingPlan, candidates, spread
from rtsx.training.tile_index import TileIndex

_WIDTH, _HEIGHT = 420, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 26, 34
_CURVE_COLOURS = ("#1b6ca8", "#d95f02", "#2a8c55", "#7a4fa3", "#a6761d")
_TICKS = 5

Points = Sequence[tuple[float, float]]


def curve(title: str, series: Mapping[str, Points], *, marked: float | None) -> str:
    """Return one diagram as an ``<svg>`` element.

    Parameters
    ----------
    title
        What stands above it.
    series
        Points (x, y) of each line, by its name; those that are not finite are left out.
    marked
        An x at which a line stands upright; None for none.

    Examples
    --------
    >>> curve("loss", {"training": [(1, 0.5), (2, 0.25)]}, marked=None).count("<polyline")
    1
    """
    finite = {
        name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)] for name, points in series.items()
    }
    every = [point for points in finite.values() for point in points]
    parts = [f'<text x="{_LEFT}" y="16" class="title">{html.escape(title)}</text>']
    if every:
        spans = [_span([point[axis] for point in every]) for axis in (0, 1)]
        parts += [_frame(*spans), *_lines(finite, *spans)]
        if marked is not None:
            x, _ = _place((marked, spans[1][0]), *spans)
            parts.append(f'<line x1="{x}" x2="{x}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" class="mark"/>')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(title)}">{"".join(parts)}</svg>'


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or max(abs(high), 1.0) * 0.05
    return low - margin, high + margin


def _place(point: tuple[float, float], xs: tuple[float, float], ys: tuple[float, float]) -> tuple[float, float]:
    across = (point[0] - xs[0]) / (xs[1] - xs[0])
    up = (point[1] - ys[0]) / (ys[1] - ys[0])
    x = _LEFT + across * (_WIDTH - _LEFT - _RIGHT)
    y = _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)
    return round(x, 1), round(y, 1)


def _frame(xs: tuple[float, float], ys: tuple[float, float]) -> str:
    parts = [
        f'<rect x="{_LEFT}" y="{_TOP}" width="{_WIDTH - _LEFT - _RIGHT}" height="{_HEIGHT - _TOP - _BOTTOM}" class="frame"/>'
    ]
    for tick in _ticks(xs, whole=True):
        x, _ = _place((tick, ys[0]), xs, ys)
        parts.append(f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 16}" class="x">{tick:g}</text>')
    for tick in _ticks(ys, whole=False):
        _, y = _place((xs[0], tick), xs, ys)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" class="y">{tick:.4g}</text>')
    return "".join(parts)


def _ticks(span: tuple[float, float], *, whole: bool) -> list[float]:
    """Round numbers within a span, about `_TICKS` of them."""
    rough = (span[1] - span[0]) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    step = max(step, 1.0) if whole else step
    first = math.ceil(span[0] / step)
    return [round(n * step, 12) for n in range(first, math.floor(span[1] / step) + 1)]


def _lines(series: Mapping[str, Points], xs: tuple[float, float], ys: tuple[float, float]) -> list[str]:
    parts = []
    for number, (name, points) in enumerate(series.items()):
        colour = _CURVE_COLOURS[number % len(_CURVE_COLOURS)]
        places = [_place(point, xs, ys) for point in points]
        line = " ".join(f"{x},{y}" for x, y in places)
        parts.append(f'<polyline points="{line}" stroke="{colour}" fill="none" stroke-width="1.6"/>')
        # Dots too, because a single epoch has no line.
        parts += [f'<circle cx="{x}" cy="{y}" r="2" fill="{colour}"/>' for x, y in places]
        parts.append(
            f'<text x="{_WIDTH - _RIGHT - 6}" y="{_TOP + 14 + 13 * number}" class="name" fill="{colour}">'
            f"{html.escape(name)}</text>"
        )
    return parts


Picture = NDArray[np.uint8]

_POSITIVE, _NEGATIVE = 5, 1
"""Tiles with and without a label that are shown."""
_COLOUR_LAYERS = ("red", "green", "blue")
_NOTHING = (220, 220, 220)
"""Of pixels that are not valid, or not evaluated."""
# Corners of a scale from dark to bright that keeps its order in grey and for the colour-blind.
_SCALE = np.array([(13, 8, 60), (84, 39, 143), (189, 55, 84), (249, 142, 9), (252, 255, 164)], np.float64)
_CLASSES = ((230, 97, 1), (27, 120, 183), (51, 140, 65), (150, 100, 190), (190, 160, 20), (200, 60, 130))
"""Colours of classes, again from the first when they run out."""


def sample_tiles(index: TileIndex) -> tuple[TileAddress, ...]:
    """Return a few tiles with labels and one without, at even distances through all scenes."""
    every = candidates(index)
    positive, negative = ([tile for tile, has_label in every if has_label == kind] for kind in (True, False))
    return (*spread(positive, _POSITIVE), *spread(negative, _NEGATIVE))


def _draw_tile(bundle: ModelBundle, reader: TileReader, tile: TileAddress) -> dict[str, str]:
    """Draw what the network sees of a tile, what is there, and the probability of the target; of several classes, of any."""
    network = bundle.network(device="cpu", precision="float32", backend="eager")
    batch = reader.read([tile])
    channels = batch.channels(bundle.inputs, fill=bundle.fill)
    output = network(channels)[0].numpy()
    target = output[0] if len(output) == 1 else 1 - output[0]
    valid = batch.valid[0].numpy()
    return {
        "image": png_link(_image(channels[0].numpy(), bundle.layers, valid=valid)),
        "truth": png_link(_truth(batch.target()[0].numpy())),
        "probability": png_link(_hidden(_scaled(target), valid=valid)),
    }


def _image(channels: NDArray[np.float32], names: Sequence[str], *, valid: NDArray[np.bool_]) -> Picture:
    shown = [names.index(name) for name in _COLOUR_LAYERS] if set(_COLOUR_LAYERS) <= set(names) else [0, 0, 0]
    planes = []
    for number in shown:
        plane = channels[number]
        low, high = np.percentile(plane[valid], (2, 98)) if valid.any() else (0.0, 1.0)
        planes.append(np.clip((plane - low) / max(high - low, 1e-6), 0, 1) * 255)
    return _hidden(np.stack(planes, axis=-1).astype(np.uint8), valid=valid)


def _truth(target: NDArray[np.uint8]) -> Picture:
    picture: Picture = np.zeros((*target.shape, 3), np.uint8)
    for number in range(1, int(target[target != IGNORED].max(initial=0)) + 1):
        picture[target == number] = _CLASSES[(number - 1) % len(_CLASSES)]
    return _hidden(picture, valid=target != IGNORED)


def _scaled(probability: NDArray[np.float32]) -> Picture:
    place = np.clip(probability, 0, 1) * (len(_SCALE) - 1)
    corners = np.arange(len(_SCALE))
    return np.stack([np.interp(place, corners, _SCALE[:, k]) for k in range(3)], axis=-1).round().astype(np.uint8)


def _hidden(picture: Picture, *, valid: NDArray[np.bool_]) -> Picture:
    picture = picture.copy()
    picture[~valid] = _NOTHING
    return picture


def png_link(picture: Picture) -> str:
    """Return a picture as an address that holds its PNG file itself."""
    Image.fromarray(picture).save(drawn := io.BytesIO(), "PNG")
    return "data:image/png;base64," + base64.b64encode(drawn.getvalue()).decode()


def write_training_report(
    plan: TrainingPlan,
    finished: TrainedModel,
    *,
    log: Sequence[LogRow],
    run: TrainedRun,
    validation_index: TileIndex | None,
) -> None:
    """Write the page beside the bundle.

    Parameters
    ----------
    plan
        What was trained.
    finished
        Counts by class and probability.
    log
        One row an epoch.
    run
        The bundle, with its provenance, and its scores.
    validation_index
        Tiles of the validation scenes, which samples are taken from; None: from the training scenes.
    """
    bundle = run.bundle
    scenes = plan.recipe.training if validation_index is None else plan.recipe.validation
    index = plan.index if validation_index is None else validation_index
    reader = TileReader(scenes, inputs=plan.inputs, tile=plan.recipe.tile, cache_bytes=CACHE_BYTES)
    facts = {
        "bundle": bundle,
        "result": _result(run),
        "scores": _scores(plan, finished, threshold=bundle.threshold),
        "curves": _curves(log, best_epoch=run.best_epoch),
        "kind": "training scenes: there is no validation" if validation_index is None else "validation scenes",
        "samples": [
            (
                f"{scenes[tile.scene].name}, row {tile.start[0]}, column {tile.start[1]}",
                _draw_tile(bundle, reader, tile),
            )
            for tile in sample_tiles(index)
        ],
        "data": _data(plan),
        "index": plan.index,
        "scaling": [(layer.name, float(np.float64(layer.scale)), float(layer.offset)) for layer in plan.inputs],
        "provenance": json.dumps(bundle.provenance, indent=1),
    }
    write_whole(plan.folder.report, render_page("training.html", facts).encode())


def _result(run: TrainedRun) -> list[tuple[str, object]]:
    bundle = run.bundle
    evaluated = run.validation is not None
    return [
        (
            "Epoch kept",
            f"{run.best_epoch} of {run.epochs}" + ("" if evaluated else ": the last, because nothing validates"),
        ),
        ("Threshold", f"{bundle.threshold:g}" + ("" if evaluated else ": not chosen")),
        *(() if bundle.outlines is None else [("Outlines", f"{bundle.outlines}, chosen by objects")]),
        ("Temperature", f"{bundle.temperature:g}" + ("" if evaluated else ": not calibrated")),
        ("Parameters", bundle.n_parameters),
        ("Digest", bundle.digest),
    ]


def _scores(plan: TrainingPlan, finished: TrainedModel, *, threshold: float) -> list[tuple[object, ...]]:
    evaluated: dict[str, EpochMetrics] = {} if finished.validation is None else {"validation": finished.validation}
    evaluated |= {f"test: {name}": metrics for name, metrics in finished.test.items()}
    return [
        (name, known, *_numbers(scores, metrics, number=number), metrics.n_pixels)
        for name, metrics in evaluated.items()
        for number, (known, scores) in enumerate(zip(plan.recipe.classes, metrics.by_class(threshold), strict=True))
    ]


def _numbers(scores: PixelScores, metrics: EpochMetrics, *, number: int) -> tuple[float, ...]:
    tally = metrics.probabilities[number]
    alone = EpochMetrics(probabilities=(tally,), decisions=())
    found = scores.iou, scores.precision, scores.recall, scores.f1
    return *found, alone.mean_average_precision(), calibration_error(tally)


def _curves(log: Sequence[LogRow], *, best_epoch: int) -> list[str]:
    def line(name: str) -> list[tuple[float, float]]:
        found = [(row.epoch, getattr(row, name)) for row in log]
        return [(float(epoch), float(value)) for epoch, value in found if value is not None]

    diagrams: Mapping[str, Mapping[str, str]] = {
        "Loss": {"training": "loss"},
        "Learning rate": {"last of the epoch": "learning_rate"},
        "Validation": {"IoU": "iou", "F1": "f1", "average precision": "average_precision"},
        "Precision and recall": {"precision": "precision", "recall": "recall"},
    }
    return [
        curve(title, {name: line(field) for name, field in lines.items()}, marked=float(best_epoch))
        for title, lines in diagrams.items()
        if any(line(field) for field in lines.values())
    ]


def _data(plan: TrainingPlan) -> list[tuple[object, ...]]:
    recipe = plan.recipe
    rows: list[tuple[object, ...]] = []
    for role, scenes in (("training", recipe.training), ("validation", recipe.validation), ("test", recipe.test)):
        for scene in scenes:
            height, width = scene.truth.shape
            rows.append((role, scene.name, scene.group, f"{height} x {width}", crs_name(geobox_of(scene.cube).crs)))
    return rows
