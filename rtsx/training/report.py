"""The report of a training: one page that needs nothing else, for people."""

import html
import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from rtsx.cube import geobox_of
from rtsx.cube.georeference import crs_name
from rtsx.scores import PixelScores, calibration_error
from rtsx.storage import write_whole
from rtsx.training.curves import curve
from rtsx.training.finishing import Finished
from rtsx.training.fitting import CACHE_BYTES
from rtsx.training.judgement import Judgement
from rtsx.training.log import LogRow
from rtsx.training.plan import TrainingPlan
from rtsx.training.png import png_link
from rtsx.training.reading import TileReader
from rtsx.training.samples import Sample, draw_samples, sample_tiles
from rtsx.training.tiles import TileIndex
from rtsx.training.trained_run import TrainedRun

__all__ = ["write_report"]

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


def write_report(
    plan: TrainingPlan, finished: Finished, *, log: Sequence[LogRow], run: TrainedRun, judging: TileIndex | None
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


def _scores(plan: TrainingPlan, finished: Finished, *, threshold: float) -> str:
    head = ("Scenes", "Class", "IoU", "Precision", "Recall", "F1", "Average precision", "Calibration error", "Pixels")
    judged: dict[str, Judgement] = {} if finished.validation is None else {"validation": finished.validation}
    judged |= {f"test: {name}": judgement for name, judgement in finished.test.items()}
    if not judged:
        return "<p>Neither validation nor test scenes were given.</p>"
    rows: list[Sequence[object]] = []
    for name, judgement in judged.items():
        for number, (known, scores) in enumerate(zip(plan.recipe.classes, judgement.by_class(threshold), strict=True)):
            rows.append((name, known, *_numbers(scores, judgement, number=number), judgement.n_pixels))
    return _table(rows, head=head)


def _numbers(scores: PixelScores, judgement: Judgement, *, number: int) -> tuple[float, ...]:
    tally = judgement.probabilities[number]
    alone = Judgement(probabilities=(tally,), decisions=())
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
