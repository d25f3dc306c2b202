"""A review in a folder or object store: its outlines, rounds, claims and verdicts. Every question asks the store."""

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from io import BytesIO
from itertools import islice
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox
from pyproj import CRS

from rtsx.cube import geobox_of, open_source
from rtsx.cube.times import years_of
from rtsx.errors import InputNotFoundError, LabelError, OutputExistsError, ReviewError
from rtsx.footprints.schema import stated_years
from rtsx.geometry.crs import transformed
from rtsx.parsing import json_value
from rtsx.review.plan import (
    BatchVerdicts,
    QueueOrder,
    ReviewClaim,
    ReviewRound,
    ReviewSettings,
    check_reviewer,
    check_texts,
    check_verdicts,
    plan_round,
    queue_outlines,
)
from rtsx.storage.diagnosis import write_failures
from rtsx.storage.lock import turn
from rtsx.storage.object_store import ObjectStore, create_generation, open_object_store

WEEK_S = 7 * 86400.0
"""Seconds that a batch is kept for a reviewer of whom nothing is heard."""
_SETTINGS = "review.json"
_OUTLINES = "outlines.parquet"
_REPEATS_AT_ONCE = 2
"""Batches of repeats that are mixed among the outlines of one batch."""
_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True, eq=False)
class Review:
    """A review that is there; `create_review` makes one, `open_review` opens it."""

    objects: ObjectStore
    """Where it lies."""
    settings: ReviewSettings
    """What is reviewed, and how."""
    clock: Callable[[], datetime] = field(default=_now, repr=False)
    """Tells the time, UTC."""

    @cached_property
    def outlines(self) -> gpd.GeoDataFrame:
        """The table as it was given; its index is the id of each outline."""
        content = self.objects.get(_OUTLINES)
        if content is None or hashlib.sha256(content).hexdigest() != self.settings.digest:
            raise ReviewError(
                f"{self.objects}/{_OUTLINES} is not what this review was made of: it was removed or replaced. Restore it."
            )
        table = gpd.read_parquet(BytesIO(content))
        return table.set_index(table[self.settings.key].astype(str).rename("outline"))

    @cached_property
    def has_points(self) -> bool:
        """Whether places are reviewed, as of a sample of the ground, and not outlines; nothing is then drawn."""
        return bool((~self.outlines.geom_type.isin(["Polygon", "MultiPolygon"])).any())

    def rounds(self) -> tuple[ReviewRound, ...]:
        """Return all rounds, the first one first."""
        keys = sorted(found.key for found in self.objects.list("rounds") if found.key.endswith("/round.json"))
        found = (self.objects.get(key) for key in keys)
        return tuple(ReviewRound.from_json(content) for content in found if content is not None)

    def verdicts(self) -> tuple[BatchVerdicts, ...]:
        """Return everything that was sent, by round, batch and reviewer.

        Raises
        ------
        ReviewError
            Verdicts are damaged, or about outlines that their batch has not.
        """
        rounds = {one.number: one for one in self.rounds()}
        keys = sorted(found.key for found in self.objects.list("verdicts") if found.key.endswith(".json"))
        sent = [BatchVerdicts.from_json(content) for content in map(self.objects.get, keys) if content is not None]
        for one in sent:
            check_verdicts(one, rounds)
        return tuple(sent)

    def claim(self, reviewer: str) -> tuple[ReviewClaim, ...]:
        """Return batches for a reviewer: those he has, else the first that is free, with repeats of what others have reviewed.

        Empty where nothing is left for him. Two reviewers never hold one batch; a claim whose time is over is free.

        Raises
        ------
        ReviewError
            The name is none, or there is no round.
        """
        check_reviewer(reviewer)
        rounds = self.rounds()
        if not rounds:
            raise ReviewError(f"{self.objects} has no round to review. Make the review again with rtsx review create.")
        current = rounds[-1]
        done = self._done(current.number)
        claims = self._claims(current.number, done)
        held = self._still_held(claims, reviewer)
        if any(current.batches[one.batch].repeats is None for one in held):
            return tuple(held)
        now = self.clock()
        free = [
            number
            for number in range(len(current.batches))
            if number not in done and (number not in claims or claims[number].is_over(now))
        ]
        first = (number for number in free if current.batches[number].repeats is None)
        taken = [*held, *self._take(current.number, first, reviewer=reviewer, count=1)]
        again = (
            number
            for number in free
            if (source := current.batches[number].repeats) is not None
            and (reviewers := done.get(source))
            and reviewer not in reviewers
        )
        taken += self._take(current.number, again, reviewer=reviewer, count=_REPEATS_AT_ONCE - len(held))
        return tuple(taken)

    def renew(self, reviewer: str) -> tuple[ReviewClaim, ...]:
        """Say that a reviewer is still there; the batches that are still his, with their new ends."""
        number = self.rounds()[-1].number
        return tuple(self._still_held(self._claims(number, self._done(number)), reviewer))

    def submit(self, verdicts: BatchVerdicts) -> bool:
        """Keep what a reviewer says of a batch, for ever; False, and nothing done, where the same was sent before.

        What is sent after a claim has ended counts too: beside another's verdicts, as a second opinion.

        Raises
        ------
        ReviewError
            An outline is unknown or without a verdict, the batch was never his, or he sent something else before.
        """
        check_reviewer(verdicts.reviewer)
        check_verdicts(verdicts, {one.number: one for one in self.rounds()})
        check_texts(verdicts)
        if self.has_points and (verdicts.added or any(one.corrected is not None for one in verdicts.answers)):
            raise ReviewError(
                "This review asks what is at points, but an outline was drawn. Leave it out; outlines are drawn in a review of "
                "footprints."
            )
        folder = _claims_of(verdicts.round, verdicts.batch)
        claims = self._read(found.key for found in self.objects.list(folder))
        if not any(claim.reviewer == verdicts.reviewer for claim in claims):
            raise ReviewError(
                f"Batch {verdicts.batch} of round {verdicts.round} was never claimed by {verdicts.reviewer}. Claim a batch, "
                "and send the verdicts of that one."
            )
        key = f"verdicts/{verdicts.round:03d}/{verdicts.batch:06d}/{verdicts.reviewer}.json"
        if self.objects.create(key, verdicts.to_json().encode()):
            return True
        content = self.objects.get(key)
        there = None if content is None else BatchVerdicts.from_json(content)
        if there is None or replace(there, finished=verdicts.finished) != verdicts:
            raise ReviewError(
                f"{verdicts.reviewer} has sent other verdicts of batch {verdicts.batch} before, and what was sent first counts. "
                "A wrong one is asked again in a further round: rtsx review create --again."
            )
        return False

    def add_round(self, outlines: Iterable[str]) -> ReviewRound:
        """Ask again of some outlines, in the order given.

        Raises
        ------
        ReviewError
            There are none.
        """
        queue, rounds, settings = tuple(outlines), self.rounds(), self.settings
        if not queue:
            raise ReviewError("No outline is unsure or disputed, so there is nothing to ask again. Merge the review.")
        done = self._done(rounds[-1].number)
        left = sum(batch.repeats is None and number not in done for number, batch in enumerate(rounds[-1].batches))
        if left:
            raise ReviewError(
                f"{left} batches of round {rounds[-1].number} are not done, and nobody would be asked for them after a further "
                "round has begun. Finish them first."
            )
        number = len(rounds) + 1
        made = plan_round(queue, number=number, batch_size=settings.batch_size, repeats=0.0, seed=settings.seed)
        if not self.objects.create(_round_key(number), made.to_json().encode()):
            raise ReviewError(
                f"Round {number} of this review is being made by somebody else. Look with rtsx review status."
            )
        return made

    def progress(self) -> tuple[int, int]:
        """Return outlines of the last round that are in finished batches, and all of it; reads no verdict."""
        last = self.rounds()[-1]
        done = self._done(last.number)
        first = [(number, batch) for number, batch in enumerate(last.batches) if batch.repeats is None]
        return sum(len(batch.outlines) for number, batch in first if number in done), last.n_outlines

    def admit(self, reviewer: str) -> str:
        """Make a token for a reviewer; only its digest is kept, and earlier ones stay good.

        Raises
        ------
        ReviewError
            The name is none.
        """
        check_reviewer(reviewer)
        token = secrets.token_urlsafe(24)
        self.objects.put(_token_key(token), json.dumps({"reviewer": reviewer}).encode())
        return token

    def reviewer_of(self, token: str) -> str | None:
        """Return whose token this is; None where it is nobody's."""
        content = self.objects.get(_token_key(token))
        return None if content is None else str(json_value(content, what="The token", error=ReviewError)["reviewer"])

    def revoke(self, reviewer: str) -> None:
        """End all tokens of a reviewer; a server that runs notices within a minute."""
        for found in list(self.objects.list("tokens")):
            content = self.objects.get(found.key)
            if content is not None and json.loads(content)["reviewer"] == reviewer:
                self.objects.delete(found.key)

    def active_claims(self) -> tuple[ReviewClaim, ...]:
        """Return claims of the last round that count now."""
        number, now = self.rounds()[-1].number, self.clock()
        return tuple(claim for claim in self._claims(number, self._done(number)).values() if not claim.is_over(now))

    def _take(self, number: int, batches: Iterable[int], *, reviewer: str, count: int) -> list[ReviewClaim]:
        """Claim the first batches that nobody else has taken meanwhile, at most so many."""
        claims = (self._taken(number, batch, reviewer=reviewer) for batch in batches)
        return [*islice((one for one in claims if one is not None), max(0, count))]

    def _taken(self, number: int, batch: int, *, reviewer: str) -> ReviewClaim | None:
        """Claim a batch; None where another has it, or it is finished."""

        def claim(generation: int) -> ReviewClaim:
            now = self.clock()
            return ReviewClaim(
                round=number,
                batch=batch,
                generation=generation,
                reviewer=reviewer,
                taken=now,
                expires=now + timedelta(seconds=self.settings.lease_s),
            )

        def is_taken(content: bytes) -> bool:
            return not ReviewClaim.from_json(content).is_over(self.clock())

        key = partial(_claim_key, number, batch)
        made, theirs = create_generation(self.objects, key, document=claim, is_taken=is_taken)
        # Asked after it was taken, because it may have been finished in between.
        return made if theirs is None and not any(self.objects.list(f"verdicts/{number:03d}/{batch:06d}")) else None

    def _still_held(self, claims: Mapping[int, ReviewClaim], reviewer: str) -> list[ReviewClaim]:
        """Return claims of a reviewer with new ends, but for those that another has taken."""
        renewed = [self._renewed(claim) for claim in claims.values() if claim.reviewer == reviewer]
        return [claim for claim in renewed if claim is not None]

    def _renewed(self, claim: ReviewClaim) -> ReviewClaim | None:
        """Return a claim with a new end; None where another reviewer has the batch."""
        if claim.is_over(self.clock()):  # others may be taking it right now, and one wins
            return self._taken(claim.round, claim.batch, reviewer=claim.reviewer)
        if self.objects.get(_claim_key(claim.round, claim.batch, claim.generation + 1)) is not None:
            return None
        later = replace(claim, expires=self.clock() + timedelta(seconds=self.settings.lease_s))
        self.objects.put(_claim_key(claim.round, claim.batch, claim.generation), later.to_json().encode())
        return later

    def _done(self, number: int) -> dict[int, set[str]]:
        """Return who has sent verdicts of each batch of a round; reads none of them."""
        done: dict[int, set[str]] = {}
        for found in self.objects.list(f"verdicts/{number:03d}"):
            batch, name = found.key.split("/")[-2:]
            done.setdefault(int(batch), set()).add(name.removesuffix(".json"))
        return done

    def _claims(self, number: int, done: Mapping[int, Collection[str]]) -> dict[int, ReviewClaim]:
        """Return the last claim of each batch of a round, but of those that have led to verdicts; of batches whose every claim has, none is read."""
        generations: dict[int, list[str]] = {}
        for found in self.objects.list(f"claims/{number:03d}"):
            generations.setdefault(int(found.key.split("/")[-2]), []).append(found.key)
        last = [max(keys) for batch, keys in sorted(generations.items()) if len(done.get(batch, ())) < len(keys)]
        claims = self._read(last)
        return {claim.batch: claim for claim in claims if claim.reviewer not in done.get(claim.batch, ())}

    def _read(self, keys: Iterable[str]) -> list[ReviewClaim]:
        return [ReviewClaim.from_json(content) for content in map(self.objects.get, keys) if content is not None]


def create_review(
    outlines: gpd.GeoDataFrame,
    out: str,
    *,
    cubes: Mapping[str, str],
    order: QueueOrder | None = None,
    class_name: str | None = None,
    blind: bool = True,
    batch_size: int = 200,
    repeats: float = 0.005,
    seed: int = 0,
    lease_s: float = WEEK_S,
    opener: Callable[[str], xr.Dataset] = open_source,
    storage_options: Mapping[str, Any] | None = None,
) -> Review:
    """Make a review of outlines: a queue in batches, for people to review.

    Parameters
    ----------
    outlines : geopandas.GeoDataFrame
        Footprints, or a sample with the column `sample_id`; any CRS.
    out : str
        A folder, or a URL such as ``s3://bucket/review``.
    cubes : mapping of str to str
        Name and source of each image to look at, the newest first. One of several years is shown in the year that its name
        has, such as ``"2024"`` or ``"map 2024"``, else in that of the outlines. One of another year than they states it in its name.
    order : {"probability", "uncertainty", "random"} or None
        Which outlines come first; None: by probability, and a sample at random.
    class_name : str or None
        What is asked for; None: the only class of the outlines, else ``target``.
    blind : bool
        Do not show the model's probability.
    batch_size : int
        Outlines of a batch, at most; shuffled within.
    repeats : float
        Part of the outlines, 0 to 1, that a second reviewer sees, for the agreement of reviewers.
    seed : int
        Of everything that is random.
    lease_s : float
        Seconds without a sign of life after which a batch is free for another reviewer.
    opener : callable
        Opens a cube lazily; `rtsx.open_cube` takes YAML files, too.
    storage_options : mapping or None
        Storage options of the file system behind a URL, such as `endpoint_url` or `anon`.

    Returns
    -------
    Review

    Raises
    ------
    ReviewError
        There is no outline, ids are missing or repeated, an outline lies beside a cube, the order cannot be had, or nothing
        states which year of an image of several is meant.
    OutputExistsError
        A review is there already.
    """
    key: Literal["sample_id", "footprint_id"] = "sample_id" if "sample_id" in outlines.columns else "footprint_id"
    _check_outlines(outlines, key)
    if not cubes:
        raise ReviewError("Reviewers look at an image, but no cube was given. Name one with --cube.")
    if batch_size < 1 or not 0 <= repeats <= 1 or seed < 0 or not lease_s > 0:
        raise ReviewError(
            f"A batch has at least 1 outline, repeats are a part from 0 to 1, a seed is at least 0 and a lease above 0 s; got "
            f"{batch_size}, {repeats}, {seed} and {lease_s}."
        )
    asked = class_name or _class_of(outlines)
    named = outlines.set_index(outlines[key].astype(str))
    for name, source in cubes.items():
        opened = opener(source)
        placed_in(named, geobox_of(opened), name=name)
        year_of_image(opened, outlines, name=name)
    chosen = order or ("random" if key == "sample_id" else "probability")
    queue = queue_outlines(outlines, key=key, order=chosen, seed=seed)
    planned = plan_round(queue, number=1, batch_size=batch_size, repeats=repeats, seed=seed)
    objects = open_object_store(out, storage_options or {})
    buffer = BytesIO()
    outlines.reset_index(drop=True).to_parquet(buffer, index=False, compression="zstd", schema_version="1.1.0")
    settings = ReviewSettings(
        class_name=asked,
        key=key,
        order=chosen,
        blind=blind,
        cubes=tuple(cubes.items()),
        batch_size=batch_size,
        repeats=repeats,
        seed=seed,
        lease_s=lease_s,
        created=_now(),
        digest=hashlib.sha256(buffer.getvalue()).hexdigest(),
    )
    # Alone, because another that came later would replace the outlines of the one that was first.
    with turn(f"{out.rstrip('/')}/review", storage_options or {}, what=f"makes a review in {out}"):
        if _settings_in(objects) is not None:
            raise OutputExistsError(
                f"{out} is a review already. Go on with it: rtsx review serve; or choose another place."
            )
        _probe(objects)
        objects.put(_OUTLINES, buffer.getvalue())
        objects.put(_round_key(1), planned.to_json().encode())
        if not objects.create(_SETTINGS, settings.to_json().encode()):  # last, so that a review is there whole or not
            raise OutputExistsError(f"{out} became a review while this one was made. Choose another place.")
    return Review(objects=objects, settings=settings)


def open_review(path: str, *, storage_options: Mapping[str, Any] | None = None) -> Review:
    """Open a review that `create_review` made.

    Parameters
    ----------
    path : str
        Its folder or URL.
    storage_options : mapping or None
        Storage options of the file system behind a URL, such as `endpoint_url` or `anon`.

    Raises
    ------
    InputNotFoundError
        There is none.
    ReviewError
        It is damaged.
    """
    objects = open_object_store(path, storage_options or {})
    content = _settings_in(objects)
    if content is None:
        raise InputNotFoundError(f"{path} is no review: it has no {_SETTINGS}. Make one with rtsx review create.")
    return Review(objects=objects, settings=ReviewSettings.from_json(content))


def placed_in(outlines: gpd.GeoDataFrame, geobox: GeoBox, *, name: str) -> gpd.GeoSeries:
    """Return outlines in the CRS of an image, once it is known that each lies in it.

    Raises
    ------
    ReviewError
        One lies beside the image, or has no place in its CRS.
    """
    assert geobox.crs is not None  # of a cube
    target = CRS.from_wkt(geobox.crs.to_wkt())
    try:
        source = CRS.from_user_input(outlines.crs)
        moved = transformed(np.asarray(outlines.geometry.array, np.object_), source, target)
    except LabelError as error:
        raise ReviewError(f"Outlines do not fit the cube {name!r}: {error}") from error
    outside = ~shapely.intersects(moved, shapely.box(*geobox.boundingbox.bbox))
    if outside.any():
        raise ReviewError(
            f"{int(outside.sum())} of {len(outlines)} outlines lie outside of the cube {name!r}, such as "
            f"{str(outlines.index[np.argmax(outside)])!r}, and nobody could see them. Give the cube that they were found in, or leave them out."
        )
    return gpd.GeoSeries(moved, index=outlines.index, crs=target)


def year_of_image(cube: xr.Dataset, outlines: gpd.GeoDataFrame, *, name: str) -> int | None:
    """Return the year in which an image is shown: that in its name, else that of the outlines, or its only one.

    None where it has no time, or one without a date.

    Raises
    ------
    ReviewError
        It has no time in the year of its name, or in that of the outlines, or several of which nothing states which one is meant.
    """
    years = sorted({year for year in years_of(cube) if year is not None})
    if not years and cube.sizes.get("time", 1) == 1:
        return None
    if not years:
        raise ReviewError(
            f"The image {name!r} has {cube.sizes['time']} times without dates, so nothing states which one is of the outlines. "
            "Give one time of it."
        )
    has = f"The image {name!r} has times of {' and '.join(map(str, years))}"
    in_name = _YEAR.findall(name)
    if len(in_name) == 1:
        if int(in_name[0]) not in years:
            raise ReviewError(f"{has}, and none of {in_name[0]}, which its name states. Name it by its own year.")
        return int(in_name[0])
    of_outlines = sorted(stated_years(outlines))
    if len(years) == 1 and (not of_outlines or years[0] in of_outlines):
        return years[0]
    if len(of_outlines) == 1 and of_outlines[0] in years:
        return of_outlines[0]
    said = f"are of {' and '.join(map(str, of_outlines))}" if of_outlines else "state no year"
    raise ReviewError(
        f"{has}, and the outlines {said}. State which year is meant in its name, such as {years[-1]}: "
        f"--cube {years[-1]}=CUBE, or --cube 'map {years[-1]}=CUBE'."
    )


def _settings_in(objects: ObjectStore) -> bytes | None:
    try:
        return objects.get(_SETTINGS)
    except OSError as error:
        raise ReviewError(
            f"{objects} cannot be read: {error}. Check the address, its rights and your credentials."
        ) from error


def _probe(objects: ObjectStore) -> None:
    """Refuse a place that cannot be written, or where two that create one object would both be told that they did."""
    key = f"probe-{secrets.token_hex(8)}"
    with write_failures(objects):
        is_kept = objects.create(key, b"first") and not objects.create(key, b"second")
        objects.delete(key)
    if not is_kept:
        raise ReviewError(
            f"{objects} does not keep conditional writes, so two reviewers could hold one batch. Use another store, or a folder."
        )


def _check_outlines(outlines: gpd.GeoDataFrame, key: str) -> None:
    if not len(outlines):
        raise ReviewError(
            "There is no outline to review: the table is empty. Lower the threshold, or give another file."
        )
    if key not in outlines.columns:
        raise ReviewError(
            f"Outlines have a footprint_id or sample_id; this table has {', '.join(map(str, outlines.columns))}. Give what "
            "rtsx footprints or rtsx sample writes."
        )
    names = outlines[key]
    if names.isna().any() or names.astype(str).duplicated().any():
        raise ReviewError(f"Every outline has a {key} of its own, but some are missing or repeated. Number them.")
    if outlines.crs is None:
        raise ReviewError("Outlines have a CRS, but this table has none. Set it with outlines.set_crs(...).")
    if outlines.geometry.isna().any() or outlines.geometry.is_empty.any():
        raise ReviewError("Every outline has a geometry, but some are empty. Leave these rows out.")


def _class_of(outlines: gpd.GeoDataFrame) -> str:
    names = set(outlines["class_name"].dropna()) if "class_name" in outlines.columns else set()
    if len(names) > 1:
        raise ReviewError(
            f"One review asks for one class, but the outlines have {', '.join(sorted(map(str, names)))}. Name the class, and give "
            "its outlines alone."
        )
    return str(names.pop()) if names else "target"


def _round_key(number: int) -> str:
    return f"rounds/{number:03d}/round.json"


def _token_key(token: str) -> str:
    return f"tokens/{hashlib.sha256(token.encode()).hexdigest()}.json"


def _claims_of(number: int, batch: int) -> str:
    return f"claims/{number:03d}/{batch:06d}"


def _claim_key(number: int, batch: int, generation: int) -> str:
    return f"{_claims_of(number, batch)}/{generation:06d}.json"
