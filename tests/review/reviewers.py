"""A region with a known truth, and reviewers who err at a known rate."""

from datetime import UTC, datetime, timedelta

import geopandas as gpd
import numpy as np
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox

from rtsx.review import Answer, BatchVerdicts, Review, ReviewClaim
from rtsx.scores.agreement import Verdict

CRS = "EPSG:32608"
SIDE_M = 3000.0


class Hands:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = datetime(2026, 7, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, *, days: float) -> None:
        self.now += timedelta(days=days)


def outlines_of(count: int, *, seed: int = 0) -> gpd.GeoDataFrame:
    """Squares with probabilities, of which `is_slump` says what they are."""
    random = np.random.default_rng(seed)
    x, y = random.uniform(500, SIDE_M - 500, (2, count))
    return gpd.GeoDataFrame(
        {
            "footprint_id": [f"y{number}x0" for number in range(count)],
            "class_name": "rts",
            "area_m2": 400.0,
            "prob_max": random.uniform(0.5, 1.0, count).round(3),
            "prob_mean": random.uniform(0.5, 1.0, count).round(3),
            "is_slump": random.random(count) < 0.6,
        },
        geometry=shapely.box(500_000 + x, 7_700_000 - y - 20, 500_000 + x + 20, 7_700_000 - y),
        crs=CRS,
    )


def image() -> xr.Dataset:
    """Bands of 300 x 300 px of 10 m: red rises to the east, green to the south, blue is flat."""
    ramp = np.linspace(100, 3000, 300).astype(np.uint16)
    bands = {
        "red": np.tile(ramp, (300, 1)),
        "green": np.tile(ramp[:, None], 300),
        "blue": np.full((300, 300), 900, np.uint16),
    }
    geobox = GeoBox.from_bbox((500_000, 7_697_000, 503_000, 7_700_000), CRS, shape=(300, 300))
    coords = {"y": geobox.coordinates["y"].values, "x": geobox.coordinates["x"].values}
    cube = xr.Dataset({name: (("y", "x"), values) for name, values in bands.items()}, coords=coords)
    return cube.rio.write_crs(CRS)


def answers(
    review: Review, claim: ReviewClaim, *, errors: float = 0.0, unsure: float = 0.0, seed: int = 0
) -> BatchVerdicts:
    """What a reviewer says who errs at random."""
    truth = review.outlines["is_slump"]
    random = np.random.default_rng([seed, claim.batch])
    said: list[Answer] = []
    for name in review.rounds()[claim.round - 1].batches[claim.batch].outlines:
        verdict: Verdict = "target" if truth[name] != (random.random() < errors) else "other"
        said.append(Answer(outline=name, verdict="unsure" if random.random() < unsure else verdict))
    return BatchVerdicts(
        round=claim.round, batch=claim.batch, reviewer=claim.reviewer, answers=tuple(said), finished=review.clock()
    )


def work_through(review: Review, *names: str, errors: float = 0.0, most: int = 10_000) -> None:
    """Reviewers take turns until nothing is left for any of them."""
    waiting = list(names)
    while waiting and most:
        name = waiting.pop(0)
        claims = review.claim(name)
        for claim in claims:
            review.submit(answers(review, claim, errors=errors, seed=sum(map(ord, name))))
        if claims:
            waiting.append(name)
        most -= 1
