"""What a delivery says of itself, for people: a fact sheet as HTML and Markdown, caveats, and a page to begin with."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import shapely
from pyproj import Geod

from rtsx.campaign.drift import DriftCheck
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.products.rasters import Tiling, delivered
from rtsx.campaign.products.reviews import Verdicts, verdict_counts
from rtsx.campaign.products.tables import CellStates, mapped_cells
from rtsx.geometry.crs import length_text
from rtsx.pages import render_page
from rtsx.storage.stac import bounding_box

_SIZES_M2 = (500, 2_000, 10_000)
"""Borders of classes of size, as samples of accuracy are stratified."""
_BAND_DEGREES = 2
"""Height of a band of latitude."""
_GEOD = Geod(ellps="WGS84")

Row = tuple[str | int | float, ...]


@dataclass(frozen=True)
class Section:
    """A table with a title."""

    title: str
    rows: Sequence[Row]
    head: tuple[str, ...] = ()
    """Names of the columns; empty where they need none."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of the map that is delivered."""

    plan: CampaignPlan
    """Of the year."""
    states: CellStates
    """Finished cells."""
    outlines: pd.DataFrame | None
    """`FACTS_OF_OUTLINES` of all footprints of the year, where they have them; None where they are not delivered."""
    tiling: Tiling
    """How rasters are cut."""
    n_rasters: int
    """Files of each variable."""
    picture: bytes
    """PNG of the whole map."""
    sources: Mapping[str, int]
    """Images that cells were made of, by source."""
    unread: int
    """Images that could not be read in some cell and were left out there."""
    versions: Mapping[str, Sequence[str]]
    """Versions of the libraries that cells were made with."""
    licence: str
    """SPDX identifier, or ``other``."""
    providers: Mapping[str, str]
    """Addresses of who provides it, by name; empty where there is none."""
    accuracy: Sequence[Mapping[str, Any]]
    """Measures of accuracy that a review has estimated, with their intervals; empty where there is none."""
    expected_m2: Mapping[str, float]
    """Sum of probability x ground by class, m²; empty where nobody asked for it."""
    review: Verdicts | None
    """What reviewers say of the outlines, or of a sample; None where nobody was asked."""
    drift: DriftCheck | None
    """How the year's images compare with those of before; None where nobody checked."""

    @property
    def title(self) -> str:
        """Name and year."""
        return f"{self.plan.name} {self.plan.year}"

    @property
    def missing(self) -> int:
        """Cells of the plan that are not finished."""
        return len(self.plan.cells) - len(self.states)

    @property
    def summary(self) -> str:
        """What it is, in a sentence."""
        found = "" if self.outlines is None else f", and the outlines of {len(self.objects):,} objects"
        return (
            f"Probability of {', '.join(self.plan.prediction.classes)} in {self.plan.year}, mapped by a neural network on "
            f"{self.plan.grid.crs} at {length_text(self.plan.grid.resolution, self.plan.grid.crs)} per pixel{found}."
        )

    @property
    def is_reviewed(self) -> bool:
        """Whether outlines have verdicts."""
        return self.outlines is not None and "verdict" in self.outlines

    @cached_property
    def objects(self) -> pd.DataFrame:
        """`outlines` without those that reviewers have refused."""
        assert self.outlines is not None
        return self.outlines[self.outlines["verdict"] != "other"] if "verdict" in self.outlines else self.outlines

    @property
    def box(self) -> list[float]:
        """West, south, east, north of the cells with a map, degrees."""
        return self._ground[1]

    @cached_property
    def _ground(self) -> tuple[float, list[float]]:
        """Area that could be classified, km² on the ellipsoid, and bounds; once, because of a hundred thousand cells that takes a minute."""
        pixels, km2, bounds = self.plan.grid.cell_size**2, 0.0, []
        for cell in mapped_cells(self.states):
            outline = self.plan.grid[cell].lonlat
            km2 += abs(_GEOD.geometry_area_perimeter(outline)[0]) / 1e6 * self.states[cell].n_valid / pixels
            bounds.append(outline.bounds)
        return km2, bounding_box(list(shapely.box(*np.transpose(bounds))))

    @cached_property
    def sections(self) -> list[Section]:
        """All tables of the fact sheet."""
        plan, tiling = self.plan, self.tiling.document
        totals: list[Row] = [
            ("Cells of the plan", len(plan.cells)),
            ("Cells that are finished", len(self.states)),
            ("Cells that are missing", self.missing),
            ("Ground that could be classified, km²", self._ground[0]),
        ]
        if self.outlines is not None:
            refused = ", without those that reviewers have refused" if self.is_reviewed else ""
            totals += [
                (f"Objects{refused}", len(self.objects)),
                (f"Area of all objects{refused}, km²", float(self.objects["area_m2"].sum()) / 1e6),
            ]
        for name, area in self.expected_m2.items():
            of = f" of {name}" if len(self.expected_m2) > 1 else ""
            totals.append((f"Expected area{of}: probability x ground, without a threshold, km²", area / 1e6))
        totals += self._estimated
        model: list[Row] = [("Digest of the model", member) for member in plan.prediction.members]
        model += [
            ("Threshold of probability", float(plan.prediction.threshold)),
            ("Classes", ", ".join(plan.prediction.classes)),
            ("Layers", ", ".join(plan.prediction.layers)),
            ("Digest of the plan", plan.digest),
        ]
        return [
            Section("Totals", totals),
            *([_of_accuracy(self.accuracy)] if self.accuracy else []),
            *self._by_verdict,
            *([] if self.outlines is None else _of_outlines(self.objects)),
            Section("Rasters", [("Files of each variable", self.n_rasters), *((k, str(v)) for k, v in tiling.items())]),
            Section("Model", model),
            Section("Inputs", sorted(self.sources.items()), ("Source", "Images")),
            Section(
                "Versions",
                [(name, ", ".join(each)) for name, each in sorted(self.versions.items())],
                ("Library", "Versions that cells were made with"),
            ),
            Section("Licence", [("Licence", self.licence), *(("Provider", one) for one in self.providers)]),
        ]

    @property
    def _by_verdict(self) -> list[Section]:
        if self.outlines is None or not self.is_reviewed:
            return []
        areas = self.outlines["area_m2"]
        return [_counted("Objects by verdict of reviewers", areas, verdict_counts(self.outlines))]

    @property
    def _estimated(self) -> list[Row]:
        """Total that follows from a reviewed sample of this map, with the ends of its interval."""
        of_all = {one["measure"]: one for one in self.accuracy if one["region"] == "all"}
        if "area_m2" in of_all:
            title, one, per, digits = "Area of the target, km²", of_all["area_m2"], 1e-6, 3
        elif "precision" in of_all and self.outlines is not None:
            added = 0 if self.review is None else len(self.review.added)
            title, one, per, digits = "Objects that are right", of_all["precision"], len(self.outlines) - added, 0
        else:
            return []
        value, low, high = (f"{float(one[name]) * per:,.{digits}f}" for name in ("value", "low", "high"))
        return [(f"{title}, estimated from the reviewed sample", f"{value} ({low} to {high})")]

    @property
    def _caveats_of_review(self) -> list[str]:
        """What is not known of the outlines, though they were reviewed."""
        review = self.review
        if review is None:
            return []
        if review.is_sample:
            left = "" if review.reviewed == review.units else ", which is not complete: those reviewed stand for all"
            units = "points of the ground" if review.is_ground else "outlines"
            reviewed = f"{review.reviewed:,} of {review.units:,} {units} of a random sample were reviewed{left}."
            return [f"{reviewed} Whatever is not in the sample has no verdict of its own."]
        assert self.outlines is not None
        open_ = int(self.outlines["verdict"].isna().sum())
        said = [
            "Outlines with the verdict `other` were refused by reviewers; they are not counted, but they are in the files."
        ]
        if open_:
            said.append(
                f"The review is not complete: {open_:,} of {len(self.outlines):,} outlines have no verdict, and are what the network "
                "has found."
            )
        return said

    @property
    def caveats(self) -> list[str]:
        """What whoever uses it has to know, a sentence or two each."""
        plan = self.plan
        said = [
            "Outlines are where a network found its target, not ground truth. What it missed is in no file"
            + (", unless reviewers have drawn it." if self.review is not None and len(self.review.added) else "."),
            "How often outlines are right was estimated from a reviewed sample, see the fact sheet; intervals hold what the sample "
            "leaves open, and not what reviewers cannot see."
            if self.accuracy
            else "How often outlines are right is not stated here: review a sample before areas or counts are published."
            if self.review is None
            else "Reviewers have looked at the outlines, but what the network missed was not searched for.",
            *self._caveats_of_review,
            *self._caveats_of_rasters,
            "Missing pixels (255) could not be classified, because there was no usable image. They are not absence.",
            "Areas of objects are on the ellipsoid. Pixels are not all of one area on the ground, so that counting them gives other areas.",
        ]
        if self.unread:
            said.append(
                f"{self.unread:,} images could not be read in some cells, which were made without them; `inputs.csv` names them, "
                "in its column `unread_cells`."
            )
        if self.outlines is not None:
            said.append(
                "Objects with `touches_edge` lie at the end of what could be classified, and may be larger than their outlines."
            )
        if "spread" in delivered(self.plan):
            said.append(
                f"`spread` is the standard deviation of the probabilities of {len(self.plan.prediction.members)} networks, at most 0.5. "
                "Where they agree they may be wrong together."
            )
        if self.expected_m2:
            said.append(
                "Expected area is the sum of probability x ground. It is an area as far as probabilities are calibrated on such ground, and "
                "holds what no outline does, because it is unlikely."
            )
        if self.missing:
            said.append(
                f"{self.missing:,} of {len(plan.cells):,} cells are missing, and so is all that lies in them; "
                "`missing_cells.csv` names them."
            )
        if self.drift is not None and self.drift.is_tripped:
            accepted = [f"{one.name} accepted that: {one.reason}" for one in self.drift.acceptances]
            found = "; ".join(str(one) for one in self.drift.findings)
            said.append(". ".join([f"The images of this year differ from those before ({found})", *accepted]))
        return [*said, "It holds products alone: no pixel of the images that it was made from."]

    @property
    def _caveats_of_rasters(self) -> list[str]:
        prediction = self.plan.prediction
        reached = (
            "where its class is the most probable one"
            if prediction.exclusive
            else f"where the probability, before it is rounded to per cent, is at least {prediction.threshold:g}"
        )
        if self.tiling.document["tiles"] == "cells":
            return [f"`binary` is 1 {reached}. Other thresholds are had from `probability`."]
        averaged = self.tiling.resampling("probability") == "average"
        way = "averaged over pixels" if averaged else "interpolated between pixels"
        said = (
            f"`binary` is that of the nearest pixel of the map: 1 {reached}. `probability` is {way}, so "
            "that a threshold of it may give other borders than `binary`, and leave small objects out."
        )
        return [
            said,
            "Rasters were brought onto the pixels of the tile matrix set; outlines were made before that, on the map's own grid.",
        ]

    def html(self) -> str:
        """The fact sheet as one page."""
        return render_page(
            "delivery.html",
            {
                "title": f"{self.title}: fact sheet",
                "summary": self.summary,
                "sections": self.sections,
                "picture": b64encode(self.picture).decode(),
            },
        )

    def markdown(self) -> str:
        """The fact sheet as Markdown."""
        tables = [f"## {section.title}\n\n{_table(section.rows, section.head)}" for section in self.sections]
        picture = "![Greatest probability](thumbnail.png)"
        return "\n\n".join([f"# {self.title}: fact sheet", self.summary, picture, *tables]) + "\n"

    def caveats_page(self) -> str:
        """The caveats as Markdown."""
        return f"# {self.title}: caveats\n\n" + "\n".join(f"- {one}" for one in self.caveats) + "\n"

    def readme(self, files: Iterable[Row]) -> str:
        """The page to begin with, which lists files and what they are."""
        stored = "Probability and spread are" if "spread" in delivered(self.plan) else "Probability is"
        return "\n\n".join(
            [
                f"# {self.title}",
                self.summary,
                _table(files, ("File", "What it is")),
                f"{stored} stored in per cent (scale 0.01), `binary` as 0 and 1; 255 is missing in all.",
                "[CAVEATS.md](CAVEATS.md): what it is not good for. [fact_sheet.md](fact_sheet.md): totals, model, inputs.",
                "Whether every file is what was delivered:\n\n```sh\nsha256sum --check --quiet SHA256SUMS\n```",
                f"Licence: {self.licence}."
                + "".join(
                    f" Provided by {f'[{name}]({address})' if address else name}." for name, address in self.providers.items()
                ),
            ]
        ) + "\n"  # fmt: skip


def _of_accuracy(estimates: Sequence[Mapping[str, Any]]) -> Section:
    """Table of measures, areas in km²."""
    rows: list[Row] = []
    for one in estimates:
        per = 1e6 if one["measure"] == "area_m2" else 1.0
        name = "area, km²" if one["measure"] == "area_m2" else str(one["measure"])
        rows.append((str(one["region"]), name, *(float(one[key]) / per for key in ("value", "low", "high"))))
    return Section("Accuracy, from a reviewed sample", rows, ("Region", "Measure", "Estimate", "Low", "High"))


def _counted(title: str, areas: "pd.Series[float]", kinds: "Iterable[tuple[str, pd.Series[bool]]]") -> Section:
    """Table of the objects of each kind, which have these areas, m²."""
    rows = [(name, int(of.sum()), float(areas[of].sum()) / 1e6) for name, of in kinds]
    return Section(title, rows, ("", "Objects", "Area, km²"))


FACTS_OF_OUTLINES = (
    "area_m2", "centroid_lat", "centroid_lon", "class_name", "confidence_class", "verdict", "is_added",
)  # fmt: skip
"""Columns of footprints that a fact sheet is made of."""


def _of_outlines(outlines: pd.DataFrame) -> list[Section]:
    """Tables of objects by class where there are several, by size, by latitude, and by confidence where they have a class of it."""
    areas = outlines["area_m2"]
    edges = (0, *_SIZES_M2, float("inf"))
    names = [f"up to {_SIZES_M2[0]:,} m²"]
    names += [f"{low:,} to {high:,} m²" for low, high in pairwise(_SIZES_M2)]
    names += [f"above {_SIZES_M2[-1]:,} m²"]
    by_size = pd.cut(areas, edges, labels=names)
    bands = np.floor(outlines["centroid_lat"] / _BAND_DEGREES) * _BAND_DEGREES
    by_latitude = bands.map(lambda low: f"{low:.0f} to {low + _BAND_DEGREES:.0f}").astype(object)
    grouped = [("Objects by size", by_size, names), ("Objects by latitude", by_latitude, sorted(set(by_latitude)))]
    if "class_name" in outlines.columns and outlines["class_name"].nunique() > 1:
        kinds = outlines["class_name"].astype(str)
        grouped.insert(0, ("Objects by class", kinds, sorted(set(kinds))))
    if "confidence_class" in outlines.columns:
        classes = outlines["confidence_class"].fillna("none").astype(str)
        grouped.append(("Objects by confidence", classes, sorted(set(classes))))
    quantiles = [(f"{share:.0%} quantile", float(areas.quantile(share))) for share in (0.05, 0.25, 0.5, 0.75, 0.95)]
    tables = [_counted(title, areas, [(name, of == name) for name in wanted]) for title, of, wanted in grouped]
    return [*tables, Section("Area of an object, m²", quantiles if len(outlines) else [])]


def _table(rows: Iterable[Row], head: Sequence[str]) -> str:
    """Return a table of Markdown."""
    lines = [[_cell(value) for value in row] for row in rows]
    if not lines:
        return "None."
    names = list(head) or [""] * len(lines[0])
    return "\n".join(f"| {' | '.join(line)} |" for line in (names, ["---"] * len(names), *lines))


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value.replace("|", "\\|").replace("\n", " ")
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"
