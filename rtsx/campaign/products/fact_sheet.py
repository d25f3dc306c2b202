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

from rtsx.campaign.drift import DriftCheck
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.products.delivery_plan import DeliveryPlan
from rtsx.campaign.products.rasters import delivered
from rtsx.campaign.products.reviews import verdict_counts
from rtsx.campaign.products.tables import CellStates, mapped_cells
from rtsx.geometry.crs import WGS84, length_text
from rtsx.pages import render_page, render_text
from rtsx.storage.stac import bounding_box

_SIZES_M2 = (500, 2_000, 10_000)
"""Borders of classes of size, as samples of accuracy are stratified."""
_BAND_DEGREES = 2
"""Height of a band of latitude."""

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

    delivery: DeliveryPlan
    """What is delivered."""
    outlines: pd.DataFrame | None
    """`FACTS_OF_OUTLINES` of all footprints of the year, where they have them; None where they are not delivered."""
    n_rasters: int
    """Files of each variable."""
    picture: bytes
    """PNG of the whole map."""
    expected_m2: Mapping[str, float]
    """Sum of probability x ground by class, m²; empty where nobody asked for it."""
    drift: DriftCheck | None
    """How the year's images compare with those of before; None where nobody checked."""

    @property
    def plan(self) -> CampaignPlan:
        """Of the year."""
        return self.delivery.plan

    @property
    def states(self) -> CellStates:
        """Finished cells."""
        return self.delivery.history.states

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
            km2 += abs(WGS84.geometry_area_perimeter(outline)[0]) / 1e6 * self.states[cell].n_valid / pixels
            bounds.append(outline.bounds)
        return km2, bounding_box(list(shapely.box(*np.transpose(bounds))))

    @cached_property
    def sections(self) -> list[Section]:
        """All tables of the fact sheet."""
        plan, delivery = self.plan, self.delivery
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
            ("Threshold of probability", str(plan.prediction.threshold)),
            ("Classes", ", ".join(plan.prediction.classes)),
            ("Layers", ", ".join(plan.prediction.layers)),
            ("Digest of the plan", plan.digest),
        ]
        return [
            Section("Totals", totals),
            *([_of_accuracy(delivery.estimates)] if delivery.estimates else []),
            *self._by_verdict,
            *([] if self.outlines is None else _of_outlines(self.objects)),
            Section(
                "Rasters",
                [
                    ("Files of each variable", self.n_rasters),
                    *((k, str(v)) for k, v in delivery.tiling.document.items()),
                ],
            ),
            Section("Model", model),
            Section("Inputs", sorted(delivery.history.sources.items()), ("Source", "Images")),
            Section(
                "Versions",
                [(name, ", ".join(sorted(each))) for name, each in sorted(delivery.history.versions.items())],
                ("Library", "Versions that cells were made with"),
            ),
            Section(
                "Licence", [("Licence", delivery.choices.license), *(("Provider", one) for one in delivery.providers)]
            ),
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
        of_all = {one["measure"]: one for one in self.delivery.estimates if one["region"] == "all"}
        if "area_m2" in of_all:
            title, one, per, digits = "Area of the target, km²", of_all["area_m2"], 1e-6, 3
        elif "precision" in of_all and self.outlines is not None:
            review = self.delivery.verdicts
            added = 0 if review is None else len(review.added)
            title, one, per, digits = "Objects that are right", of_all["precision"], len(self.outlines) - added, 0
        else:
            return []
        value, low, high = (f"{float(one[name]) * per:,.{digits}f}" for name in ("value", "low", "high"))
        return [(f"{title}, estimated from the reviewed sample", f"{value} ({low} to {high})")]

    def html(self) -> str:
        """Return the fact sheet as one page."""
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
        """Return the fact sheet as Markdown."""
        return render_text("fact_sheet.md", {"facts": self}) + "\n"

    def caveats_page(self) -> str:
        """Return what whoever uses it has to know, a sentence or two each, as Markdown."""
        return render_text("caveats.md", {"facts": self, "has_spread": "spread" in delivered(self.plan)}) + "\n"

    def readme(self, files: Sequence[Row]) -> str:
        """Return the page to begin with, which lists files and what they are."""
        has_spread = "spread" in delivered(self.plan)
        return render_text("package.md", {"facts": self, "files": files, "has_spread": has_spread}) + "\n"


def _of_accuracy(estimates: Sequence[Mapping[str, Any]]) -> Section:
    """Return the table of measures, areas in km²."""
    rows: list[Row] = []
    for one in estimates:
        per = 1e6 if one["measure"] == "area_m2" else 1.0
        name = "area, km²" if one["measure"] == "area_m2" else str(one["measure"])
        rows.append((str(one["region"]), name, *(float(one[key]) / per for key in ("value", "low", "high"))))
    return Section("Accuracy, from a reviewed sample", rows, ("Region", "Measure", "Estimate", "Low", "High"))


def _counted(title: str, areas: "pd.Series[float]", kinds: "Iterable[tuple[str, pd.Series[bool]]]") -> Section:
    """Return the table of the objects of each kind, which have these areas, m²."""
    rows = [(name, int(of.sum()), float(areas[of].sum()) / 1e6) for name, of in kinds]
    return Section(title, rows, ("", "Objects", "Area, km²"))


FACTS_OF_OUTLINES = (
    "area_m2", "centroid_lat", "centroid_lon", "class_name", "confidence_class", "verdict", "is_added",
)  # fmt: skip
"""Columns of footprints that a fact sheet is made of."""


def _of_outlines(outlines: pd.DataFrame) -> list[Section]:
    """Return tables of objects by class where there are several, by size, by latitude, and by confidence where they have a class of it."""
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
