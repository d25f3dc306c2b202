"""The report of a training: one page with its curves and sample pictures, that needs nothing else."""

import base64
import html
import json
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rtsx.cube import geobox_of
from rtsx.cube.georeference import crs_name
from rtsx.labels import IGNORED
from rtsx.model import InputLayer
from rtsx.scores import PixelScores, calibration_error
from rtsx.storage import write_whole
from rtsx.training.dataset import TileReader
from rtsx.training.finish import TrainedModel
from rtsx.training.loader import BatchReader
from rtsx.training.loop import CACHE_BYTES
from rtsx.training.metrics import EpochMetrics
from rtsx.training.plan import TrainingPlan
from rtsx.training.run_log import LogRow
from rtsx.training.sampler import TileAddress
from rtsx.training.tile_index import TileIndex
from rtsx.training.trained_run import TrainedRun

__all__ = ["Sample", "curve", "draw_samples", "png_bytes", "png_link", "sample_tiles", "write_training_report"]

_WIDTH, _HEIGHT = 420, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 26, 34
_CURVE_COLOURS = ("#1b6ca8", "#d95f02", "#2a8c55", "#7a4fa3", "#a6761d")
_TICKS = 5

Points = Sequence[tuple[float, float]]


def curve(title: str, series: Mapping[str, Points], *, marked: float | None) -> str:
    """One diagram as an ``<svg>`` element.

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
"""Of pixels that are not valid, or not judged."""
# Corners of a scale from dark to bright that keeps its order in grey and for the colour-blind.
_SCALE = np.array([(13, 8, 60), (84, 39, 143), (189, 55, 84), (249, 142, 9), (252, 255, 164)], np.float64)
_CLASSES = ((230, 97, 1), (27, 120, 183), (51, 140, 65), (150, 100, 190), (190, 160, 20), (200, 60, 130))
"""Colours of classes, again from the first when they run out."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One tile, drawn."""

    scene: int
    """Number of its scene."""
    start: tuple[int, int]
    """Its first row and column, px."""
    image: Picture
    """What the network sees (y, x, 3): red, green and blue where there are, else its first channel in grey."""
    truth: Picture
    """Classes in colours."""
    probability: Picture
    """Of the target, from dark for 0 to bright for 1; of several classes, of any."""


def sample_tiles(index: TileIndex) -> tuple[TileAddress, ...]:
    """A few tiles with labels and one without, at even distances through all scenes."""
    every = [
        (TileAddress(number, (int(y), int(x))), bool(labelled))
        for number, scene in enumerate(index.scenes)
        for (y, x), labelled in zip(scene.starts, scene.labelled, strict=True)
    ]
    chosen: list[TileAddress] = []
    for wanted, is_positive in ((_POSITIVE, True), (_NEGATIVE, False)):
        fitting = [tile for tile, has_label in every if has_label == is_positive]
        places = np.linspace(0, len(fitting) - 1, min(wanted, len(fitting))).round().astype(int)
        chosen.extend(fitting[place] for place in places)
    return tuple(chosen)


def draw_samples(
    network: Callable[[torch.Tensor], torch.Tensor],
    reader: BatchReader,
    tiles: Sequence[TileAddress],
    *,
    inputs: Sequence[InputLayer],
    fill: float,
    device: torch.device,
) -> list[Sample]:
    """Draw tiles as the network sees them, and what it answers; `network` gives probabilities."""
    samples = []
    for tile in tiles:
        batch = reader.read([tile]).to(device)
        channels = batch.channels(inputs, fill=fill)
        answer = network(channels)[0].cpu().numpy()
        target = answer[0] if len(answer) == 1 else 1 - answer[0]
        valid = batch.valid[0].cpu().numpy()
        samples.append(
            Sample(
                scene=tile.scene,
                start=tile.start,
                image=_image(channels[0].cpu().numpy(), [layer.name for layer in inputs], valid=valid),
                truth=_truth(batch.target()[0].cpu().numpy()),
                probability=_hidden(_scaled(target), valid=valid),
            )
        )
    return samples


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


def png_bytes(picture: NDArray[np.uint8]) -> bytes:
    """A picture (y, x, 3) of red, green and blue as a PNG file.

    Examples
    --------
    >>> png_bytes(np.zeros((2, 2, 3), np.uint8))[1:4]
    b'PNG'
    """
    height, width, _ = picture.shape
    # Each row begins with the number of its filter: 0, none.
    rows = np.concatenate([np.zeros((height, 1), np.uint8), picture.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def png_link(picture: NDArray[np.uint8]) -> str:
    """The same as an address that holds the file itself."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(picture)).decode()


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222 }
h1, h2 { font-weight: 600 } h2 { margin-top: 2.2rem; border-bottom: 1px solid #ddd }
table { border-collapse: collapse } td, th { padding: .2rem .9rem .2rem 0; text-align: left; vertical-align: top }
th { color: #555; font-weight: 500 } td.number { text-align: right; font-variant-numeric: tabular-nums }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem }
svg text { font: 11px system-ui, sans-serif } svg .title { font-size: 13px; font-weight: 600 }
svg .x { text-anchor: middle } svg .y, svg .name { text-anchor: end }
svg .frame { fill: none; stroke: #bbb } svg .grid { stroke: #eee } svg .mark { stroke: #999; stroke-dasharray: 3 3 }
.samples figure { display: inline-block; margin: .4rem } .samples img { width: 15rem; image-rendering: pixelated }
figcaption { color: #555; font-size: 12px } pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: 12px }
"""


def write_training_report(
    plan: TrainingPlan, finished: TrainedModel, *, log: Sequence[LogRow], run: TrainedRun, judging: TileIndex | None
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
    judging
        Tiles of the validation scenes, which samples are taken from; None: from the training scenes.
    """
    bundle = run.bundle
    scenes = plan.recipe.training if judging is None else plan.recipe.validation
    index = plan.index if judging is None else judging
    samples = draw_samples(
        bundle.network(device="cpu", precision="float32", backend="eager"),
        TileReader(scenes, inputs=plan.inputs, tile=plan.recipe.tile, cache_bytes=CACHE_BYTES),
        sample_tiles(index),
        inputs=bundle.inputs,
        fill=bundle.fill,
        device=torch.device("cpu"),
    )
    kind = "training scenes: there is no validation" if judging is None else "validation scenes"
    sections = [
        f"<h1>{html.escape(bundle.id)}</h1><p>{html.escape(str(bundle))}</p>",
        _section("Result", _table(_result(run))),
        _section("Scores", _scores(plan, finished, threshold=bundle.threshold)),
        _section("Curves", _curves(log, best_epoch=run.best_epoch)),
        _section(f"Samples of the {kind}", _samples(samples, names=[scene.name for scene in scenes])),
        _section("Data", _data(plan)),
        _section("Settings and provenance", f"<pre>{html.escape(json.dumps(bundle.provenance, indent=1))}</pre>"),
    ]
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(bundle.id)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(sections)}</body></html>\n"
    )
    write_whole(plan.folder.report, page.encode())


def _section(title: str, body: str) -> str:
    return f"<h2>{html.escape(title)}</h2>{body}"


def _table(rows: Iterable[Sequence[object]], *, head: Sequence[str] = ()) -> str:
    top = f"<tr>{''.join(f'<th>{html.escape(name)}</th>' for name in head)}</tr>" if head else ""
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    return f"<table>{top}{body}</table>"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f'<td class="number">{value:.4f}</td>'
    if isinstance(value, int):
        return f'<td class="number">{value:,}</td>'
    return f"<td>{html.escape(str(value))}</td>"


def _result(run: TrainedRun) -> list[tuple[str, object]]:
    bundle = run.bundle
    judged = run.validation is not None
    return [
        (
            "Epoch kept",
            f"{run.best_epoch} of {run.epochs}" + ("" if judged else ": the last, because nothing validates"),
        ),
        ("Threshold", f"{bundle.threshold:g}" + ("" if judged else ": not chosen")),
        ("Temperature", f"{bundle.temperature:g}" + ("" if judged else ": not calibrated")),
        ("Parameters", bundle.n_parameters),
        ("Digest", bundle.digest),
    ]


def _scores(plan: TrainingPlan, finished: TrainedModel, *, threshold: float) -> str:
    head = ("Scenes", "Class", "IoU", "Precision", "Recall", "F1", "Average precision", "Calibration error", "Pixels")
    judged: dict[str, EpochMetrics] = {} if finished.validation is None else {"validation": finished.validation}
    judged |= {f"test: {name}": judgement for name, judgement in finished.test.items()}
    if not judged:
        return "<p>Neither validation nor test scenes were given.</p>"
    rows: list[Sequence[object]] = []
    for name, judgement in judged.items():
        for number, (known, scores) in enumerate(zip(plan.recipe.classes, judgement.by_class(threshold), strict=True)):
            rows.append((name, known, *_numbers(scores, judgement, number=number), judgement.n_pixels))
    return _table(rows, head=head)


def _numbers(scores: PixelScores, judgement: EpochMetrics, *, number: int) -> tuple[float, ...]:
    tally = judgement.probabilities[number]
    alone = EpochMetrics(probabilities=(tally,), decisions=())
    return (
        scores.iou,
        scores.precision,
        scores.recall,
        scores.f1,
        alone.mean_average_precision(),
        calibration_error(tally),
    )


def _curves(log: Sequence[LogRow], *, best_epoch: int) -> str:
    def line(name: str) -> list[tuple[float, float]]:
        found = [(row.epoch, getattr(row, name)) for row in log]
        return [(float(epoch), float(value)) for epoch, value in found if value is not None]

    diagrams: Mapping[str, Mapping[str, str]] = {
        "Loss": {"training": "loss"},
        "Learning rate": {"last of the epoch": "learning_rate"},
        "Validation": {"IoU": "iou", "F1": "f1", "average precision": "average_precision"},
        "Precision and recall": {"precision": "precision", "recall": "recall"},
    }
    drawn = [
        curve(title, {name: line(field) for name, field in lines.items()}, marked=float(best_epoch))
        for title, lines in diagrams.items()
        if any(line(field) for field in lines.values())
    ]
    return f'<p>By epoch; the dashed line is the one that was kept.</p><div class="curves">{"".join(drawn)}</div>'


def _samples(samples: Sequence[Sample], *, names: Sequence[str]) -> str:
    figures = []
    for sample in samples:
        caption = f"{names[sample.scene]}, row {sample.start[0]}, column {sample.start[1]}"
        for picture, kind in ((sample.image, "image"), (sample.truth, "truth"), (sample.probability, "probability")):
            figures.append(
                f'<figure><img alt="{kind}" src="{png_link(picture)}"><figcaption>{html.escape(caption)}: {kind}'
                "</figcaption></figure>"
            )
        figures.append("<br>")
    return (
        "<p>Grey: not valid or not judged. Truth: a colour for each class. Probability: dark for 0, bright for 1.</p>"
        f'<div class="samples">{"".join(figures)}</div>'
    )


def _data(plan: TrainingPlan) -> str:
    recipe = plan.recipe
    rows = []
    for role, scenes in (("training", recipe.training), ("validation", recipe.validation), ("test", recipe.test)):
        for scene in scenes:
            geobox = geobox_of(scene.cube)
            height, width = scene.truth.shape
            rows.append((role, scene.name, scene.group, f"{height} x {width}", crs_name(geobox.crs)))
    scaling = [(layer.name, float(np.float64(layer.scale)), float(layer.offset)) for layer in plan.inputs]
    index = plan.index
    return (
        _table(rows, head=("Role", "Scene", "Group", "Pixels", "CRS"))
        + f"<p>Tiles of {index.tile} px to learn from: {index.n_positive:,} with a label, {index.n_negative:,} without.</p>"
        + _table(scaling, head=("Layer", "Scale", "Offset"))
    )
