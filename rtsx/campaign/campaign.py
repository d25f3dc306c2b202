"""`Campaign`: a region of any size, mapped cell by cell; planned, run, stopped, run again, watched and collected.

What plans, runs, draws and collects is imported by the methods that do, because whoever looks at a campaign needs none of it.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rtsx.arguments import typed
from rtsx.campaign.cells import Address
from rtsx.campaign.drift import DriftCheck, accept_drift
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.ledger import CampaignLedger, planned_years, read_prices
from rtsx.campaign.plan import CampaignPlan, read_plan
from rtsx.campaign.recipe import CampaignRecipe, Prices
from rtsx.campaign.records import ProgressCallback, RunSummary
from rtsx.campaign.stages import Verification, YearStages, note_damage, note_stage, verify_year, year_stages
from rtsx.campaign.status import CampaignStatus, campaign_status, watch_campaign
from rtsx.errors import CampaignError
from rtsx.grid.grid import cell_id
from rtsx.pages import html_table
from rtsx.storage import cloud_of, options_beside
from rtsx.storage.lock import turn
from rtsx.storage.object_store import ObjectStore, open_object_store

if TYPE_CHECKING:
    from os import PathLike

    import geopandas
    import xarray as xr
    from distributed import Client

    from rtsx.campaign.copying import Copied
    from rtsx.campaign.estimate import CampaignEstimate
    from rtsx.campaign.fetch import Fetched
    from rtsx.campaign.products import Collected, Delivered
    from rtsx.campaign.report import CampaignReport
    from rtsx.campaign.run import CampaignUpdate
    from rtsx.footprints import ConfidenceRule


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Campaign:
    """One year of a campaign: its plan, and where it is written. What is done is asked of the output each time.

    Made by `create` from a recipe, or by `open` from an output alone, for looking at it from anywhere.
    """

    plan: CampaignPlan
    """What is run, frozen."""
    output: str
    """Folder or URL that receives everything."""
    storage_options: Mapping[str, Any] = field(default_factory=dict)
    """Storage options of the file system behind a URL, such as `endpoint_url` or `anon`."""
    recipe: CampaignRecipe | None = None
    """Sources and bundles; None where the campaign was opened from its output alone."""
    prices: Prices = field(default=Prices())
    """What costs are computed with."""

    def __repr__(self) -> str:
        """In a line, because a plan is a page and may hold a million cells."""
        return f"<Campaign {self.plan.name} {self.plan.year}: {len(self.plan.cells):,} cells, output {self.output}>"

    def _repr_html_(self) -> str:
        return html_table(f"Campaign {self.plan.name} {self.plan.year}", [("output", self.output), *self.plan.summary])

    @classmethod
    @typed(CampaignError)
    def create(cls, recipe: CampaignRecipe, *, config: str = "") -> Self:
        """Plan a campaign and make room for it, or take up the one that is there if it is the same.

        Parameters
        ----------
        recipe
            What is asked for; one without bundles takes up a campaign that is planned, to fetch its inputs.
        config
            Text that is stored beside the plan, such as the resolved YAML that the recipe comes from.

        Returns
        -------
        Campaign
            Ready to run; nothing of it has been run by this call.

        Raises
        ------
        CampaignError
            The output cannot keep marks or holds another plan, the region meets no source, or the recipe cannot work.
        OutputNotWritableError
            The output cannot be written, or has no room.
        BundleError, PlanError, CubeError
            Bundles, tiles and layers do not go together, or a source cannot be asked.
        """
        if recipe.bundles:
            from rtsx.campaign.planning import create_plan

            plan = create_plan(recipe, config=config)
        else:
            from rtsx.campaign.fetch import planned_inputs

            plan = planned_inputs(recipe, config=config)
        return cls(
            plan=plan, output=recipe.output, storage_options=recipe.storage_options, recipe=recipe, prices=recipe.prices
        )

    @classmethod
    @typed(CampaignError)
    def open(
        cls, output: str | Path, *, year: int | None = None, storage_options: Mapping[str, Any] | None = None
    ) -> Self:
        """Open a campaign from its output, to look at it; needs no source and no bundle, and cannot run.

        Parameters
        ----------
        output
            Folder or URL.
        year
            Which; None for the newest.
        storage_options
            Storage options of the file system behind a URL, such as `endpoint_url` or `anon`.

        Raises
        ------
        CampaignError
            There is no plan of that year, or it cannot be read.
        """
        objects = open_object_store(str(output), storage_options or {})
        try:
            years = planned_years(objects) if year is None else [year]
            plan = read_plan(objects, years[-1]) if years else None
        except OSError as error:
            cloud = cloud_of(str(output))
            cure = (
                "Check the path." if cloud is None else f"Check the address; for credentials set {cloud.credentials}."
            )
            raise CampaignError(f"{output} cannot be read: {error}. {cure}") from error
        if not years:
            raise CampaignError(f"{output} holds no campaign. Check the path, or plan the campaign first.")
        if plan is None:
            known = ", ".join(map(str, planned_years(objects))) or "none"
            raise CampaignError(f"{output} holds no plan of {years[-1]}; planned years: {known}.")
        return cls(
            plan=plan,
            output=str(output),
            storage_options=storage_options or {},
            prices=read_prices(objects, year=plan.year),
        )

    @cached_property
    def objects(self) -> ObjectStore:
        """Objects of the output."""
        return open_object_store(self.output, self.storage_options)

    @cached_property
    def ledger(self) -> CampaignLedger:
        """Marks, failures and leases of the year."""
        return CampaignLedger(self.objects, YearLayout(self.plan.year))

    def estimate(self, *, seconds_per_tile: float | None = None, hardware: str = "") -> "CampaignEstimate":
        """Estimate what the whole campaign takes: cells, pixels, memory, bytes, hours and money.

        Parameters
        ----------
        seconds_per_tile
            Measured time of one tile on the device of a worker; None leaves hours out.
        hardware
            What that device is, as commit records name it, for its price: CPU, or a card by its name.

        Raises
        ------
        CampaignError
            The campaign was opened without its recipe.
        """
        from rtsx.campaign.estimate import CampaignEstimate, finished_cells

        recipe = self.required_recipe("An estimate")
        done = finished_cells(self.objects, self.plan) if recipe.prices.machines else None
        return CampaignEstimate.of(self.plan, recipe, seconds_per_tile, hardware=hardware, done=done)

    @typed(CampaignError)
    def check(
        self, *, cells: int = 64, against: int | None = None, progress: Callable[[int, int], None] | None = None
    ) -> DriftCheck:
        """Compare a sample of the year's images with those of another year, and with what the models have learnt from.

        A layer drifts where its mean, its spread or a quantile is more than half a standard deviation of the reference away; against a
        year, also where the share of invalid pixels is by more than 0.2. Another year decides where one was checked; models, whose
        tiles lie around what they look for, only where none was. The result and a page are kept in the output, and `run`, `work` and
        `update` refuse a year whose check has tripped until `accept_drift`.

        Parameters
        ----------
        cells
            How many are looked at, drawn at random, the same ones every time; 256 x 256 px of each. Those that the other year's check
            looked at are among them; give all years the same number, so that like is compared with like.
        against
            The other year; None for the nearest before that was checked and may run, else the nearest after.
        progress
            Called with how many cells were looked at, and of how many, after each.

        Raises
        ------
        CampaignError
            The campaign was opened without its recipe, or the other year was not checked.
        CubeError
            An image cannot be read.
        OutputNotWritableError
            The output cannot be written.
        """
        from rtsx.campaign.drift_check import check_drift

        return check_drift(self, cells=cells, against=against, progress=progress)

    @typed(CampaignError)
    def accept_drift(self, *, name: str, reason: str) -> DriftCheck:
        """Let the year run although its check has tripped; who and why is kept with the check, and shown by its page.

        Parameters
        ----------
        name
            Who accepts it.
        reason
            Why.

        Raises
        ------
        CampaignError
            Name or reason is empty, or the check was not made or has not tripped.
        """
        return accept_drift(self.objects, self.plan, name=name, reason=reason)

    @typed(CampaignError)
    def run(self, client: "Client", *, progress: ProgressCallback | None = None) -> RunSummary:
        """Run every cell that has no mark and was not set aside; stop it and call it again as often as you like.

        Parameters
        ----------
        client
            Of any dask cluster, whose workers reach the output and the sources by the same names.
        progress
            Called with what became of each cell, in this thread.

        Returns
        -------
        RunSummary
            Of all cells that had no mark when it began; those that earlier runs set aside count as set aside. It is not
            complete while a cell of the campaign has no mark.

        Raises
        ------
        CampaignError
            The campaign was opened without its recipe, the output is not what this campaign was planned with, or its drift check has
            tripped and nobody accepted it.
        ClusterError
            The cluster is lost, or its workers cannot run this campaign.
        OutputNotWritableError
            The output cannot be written.
        """
        from rtsx.campaign.run import run_campaign

        return run_campaign(self, client, progress=progress)

    @typed(CampaignError)
    def work(self, *, until: datetime | None = None, progress: ProgressCallback | None = None) -> RunSummary:
        """Run cells in this process, one at a time, until none is left: a worker without a scheduler.

        Any number of processes may do this at the same time, on any machines that see the output, beside `run` too. Each takes
        cells by lease, along the plan's order from a place of its own, and waits at the end for those that others hold, because
        it takes over what a lost one has left. The bytes and records are those of `run`. A cell that was lost with as many
        workers as it has attempts is set aside.

        Parameters
        ----------
        until
            When to end, aware: no cell is begun that would not be done by then, as the slowest so far took, and one that is under
            way then is given up, where this is the main thread. None for no such time.
        progress
            Called with how it stands before each cell, in this thread.

        Returns
        -------
        RunSummary
            Of all cells that had no mark when it began; `skipped` were done by others since. It is not complete while a cell of
            the campaign has no mark, and `stopped` tells why this worker ended before.

        Raises
        ------
        CampaignError
            The campaign was opened without its recipe, the output is not what it was planned with, its drift check has tripped and
            nobody accepted it, or `until` has no zone.
        ClusterError
            This machine has too little memory, or other libraries than workers that are at the campaign now.
        OutputNotWritableError
            The output cannot be written.
        """
        from rtsx.campaign.work import work_campaign

        return work_campaign(self, until=until, progress=progress)

    @typed(CampaignError)
    def fetch(
        self,
        to: "str | PathLike[str]",
        *,
        update: bool = False,
        check: bool = False,
        retry: bool = False,
        until: datetime | None = None,
        progress: ProgressCallback | None = None,
    ) -> "Fetched":
        """Copy the pixels that all cells read into one store, so that they can be run where no source is reached.

        Any number of processes may do this at the same time, on any machines that see output and store, as with `work`. Blocks of
        images are fetched once, and shared by the cells that look at them; the store may be that of other years and campaigns.
        `Campaign.create` with the store as `fetched` of the recipe then runs from it, and writes the same bytes.

        Parameters
        ----------
        to
            Folder, or URL with credentials from the environment; new, or one that was filled before.
        update
            Ask the sources again before, and fetch what came or changed since; `update` from the store then maps it.
        check
            Read all blocks again before, and fetch again what is not as it was written, and what could not be read.
        retry
            Also try cells again that were set aside.
        until, progress
            As for `work`.

        Returns
        -------
        Fetched
            What is there now; `run` tells what this call did, and is not complete while a cell is missing.

        Raises
        ------
        CampaignError
            The campaign was opened without its recipe, or another library than rtsx reads a source.
        OutputNotWritableError
            The store cannot be written.
        """
        from rtsx.campaign.fetch import fetch_campaign

        to = os.fspath(to)
        return fetch_campaign(self, to, update=update, check=check, retry=retry, until=until, progress=progress)

    @typed(CampaignError)
    def update(self, client: "Client", *, progress: ProgressCallback | None = None) -> "CampaignUpdate":
        """Run the cells again whose inputs changed since they were made, came or went, and all that have no mark.

        Parameters
        ----------
        client
            As for `run`.
        progress
            Called with what became of each cell that is run, in this thread.

        Raises
        ------
        CampaignError, ClusterError, OutputNotWritableError
            As for `run`.
        CubeError
            A STAC API cannot be asked what it has now; nothing is changed then.
        """
        from rtsx.campaign.run import update_campaign

        return update_campaign(self, client, progress=progress)

    def status(self) -> CampaignStatus:
        """Report how far it is, from any machine; reads listings, and no commit record.

        Raises
        ------
        CampaignError
            The output cannot be read, or a record in it is damaged.
        """
        return campaign_status(self.objects, self.plan, prices=self.prices)

    def stages(self, years: Iterable[int] | None = None) -> tuple[YearStages, ...]:
        """Count the cells of each stage of the years that were planned, from any machine, by listings.

        Parameters
        ----------
        years
            Which; None for all.

        Raises
        ------
        CampaignError
            The output cannot be read, or the plan or a record of one of `years` is damaged.

        Warns
        -----
        RuntimeWarning
            Of all years, one is left out, because its plan or a record of it is damaged.
        """
        found: list[YearStages] = []
        for year in planned_years(self.objects) if years is None else years:
            try:
                plan = read_plan(self.objects, year)
                found += [] if plan is None else [year_stages(self.objects, plan)]
            except CampaignError as error:
                if years is not None:
                    raise
                warnings.warn(f"{year} is left out: {error}", RuntimeWarning, stacklevel=2)
        return tuple(found)

    @typed(CampaignError)
    def watch(self, notify: Callable[[str], None], *, quiet: timedelta = timedelta(minutes=30)) -> CampaignStatus:
        """Look once, and send the alerts that are new: a drift check that has tripped, cells set aside, runs that stopped, silence, the end and its cost.

        What was sent is kept in the output, so that a look from another process or machine repeats nothing; one that is under way is
        waited for. That the time of a worker was over is no alert. The end, with cells set aside or not, is sent once all runs have ended.

        Parameters
        ----------
        notify
            Called with each message, text of some lines. What it raises is raised, and the message comes again at the next look.
        quiet
            A campaign with cells left is said to be quiet where for so long no cell was done, no run wrote its record, and no lease
            was renewed.

        Raises
        ------
        CampaignError
            The output cannot be read.
        """
        where, year = f"{self.output.rstrip('/')}/watch-{self.plan.year}", self.plan.year
        with turn(where, self.storage_options, what=f"looks at {year} and sends alerts"):
            return watch_campaign(self.objects, self.plan, prices=self.prices, notify=notify, quiet=quiet)

    def retry(self, cells: Iterable[Address] | None = None) -> int:
        """Let cells that were set aside be run again by the next run; how many there were.

        Parameters
        ----------
        cells
            Which; None for all of them. Cells that are named and have a mark lose it, so that they are made anew, such as
            those that `verify` has found damaged.

        Raises
        ------
        CampaignError
            A cell is none of the plan's.
        """
        if cells is None:
            return self.ledger.reset()
        wanted = list(dict.fromkeys(cells))
        strange = [cell for cell in wanted if cell not in self.plan.cells]
        if strange:
            told = ", ".join(cell_id(*cell) for cell in strange[:5])
            raise CampaignError(
                f"{told}: none of this campaign's {len(self.plan.cells)} cells, such as {cell_id(*next(iter(self.plan.cells)))}."
            )
        marked = [cell for cell in wanted if self.objects.get(self.ledger.layout.mark(cell)) is not None]
        for cell in marked:
            self.ledger.retire(cell)
        return self.ledger.reset(wanted) + len(marked)

    def verify(self, cells: Iterable[Address] | None = None) -> Verification:
        """Read every object of every mark again, and compare it with the digest that was noted when it was written; of all cells, the map's coordinates too.

        What was found sound is noted in the output, if that can be written, for the stages of `status`; nothing else is changed.

        Parameters
        ----------
        cells
            Which; None for all.
        """
        wanted = None if cells is None else [*cells]
        marked = self.ledger.moments()
        found = verify_year(self.output, self.ledger.layout, storage_options=self.storage_options, cells=wanted)
        if wanted is None and marked:
            from rtsx.campaign.map import damaged_coordinates  # here, because it is heavy

            faults = damaged_coordinates(self.output, self.plan, storage_options=self.storage_options)
            found = replace(found, coordinates=faults)
        if wanted is None and not found.coordinates:
            note_stage(self.objects, self.plan, "verified", marked=marked, without=found.cells)
        else:
            note_damage(self.objects, self.plan, found.cells)
        return found

    @typed(CampaignError)
    def report(self, path: str | Path | None = None, *, coast: "str | PathLike[str] | None" = None) -> "CampaignReport":
        """Write the report: one HTML page that needs nothing else, with map, pictures of what was found, throughput, costs and failures.

        Parameters
        ----------
        path
            Local file; None for ``report.html`` in the year's folder of the output.
        coast
            Vector file whose lines, or borders of land, are drawn on the map; None for Natural Earth where cartopy keeps it, or, coarser,
            as it comes with pyogrio.

        Returns
        -------
        CampaignReport
            Where the page lies, and what a cell and 10⁶ km² have cost, with standard errors.

        Raises
        ------
        CampaignError, LabelError, InputNotFoundError
            The coast lines cannot be read.
        OutputExistsError
            Something else than such a page is there.
        OutputNotWritableError
            The page cannot be written.
        """
        from rtsx.campaign.report import write_report

        return write_report(self, path=path, coast=coast)

    def collect(
        self,
        *,
        formats: Sequence[str] = (),
        confidence_rule: "ConfidenceRule | str | PathLike[str] | None" = None,
        levels: bool = True,
        tracks: bool = True,
        overviews: bool = True,
        stac: bool = True,
    ) -> "Collected":
        """Make products of all cells that are done; called again after more are done, only what they touch is written.

        One at a time in each output: another process that collects a year is waited for.

        Parameters
        ----------
        formats
            Also one file of all outlines each: ``"gpkg"``, ``"flatgeobuf"``, ``"pmtiles"``.
        confidence_rule
            A class for each outline, as the column `confidence_class`, by a rule that `derive_confidence_rule` made of a
            reviewed sample, or by its file. Kept with the products, and applied from then on.
        levels
            Outlines of the year as one set.
        tracks
            Objects over this year and earlier ones.
        overviews
            Coarser levels of the map.
        stac
            A STAC collection with an item for each cell that has a map.

        Raises
        ------
        CampaignError
            A format is unknown, or what a cell has written is missing or damaged.
        MissingExtraError
            A format cannot be written here.
        OutputNotWritableError
            The output cannot be written.
        """
        from rtsx.campaign.products import collect_year

        marked = self.ledger.moments()
        collected = collect_year(
            self.output,
            self.plan,
            storage_options=self.storage_options,
            formats=formats,
            confidence_rule=confidence_rule,
            levels=levels,
            tracks=tracks,
            overviews=overviews,
            stac=stac,
        )
        note_stage(self.objects, self.plan, "collected", marked=marked)
        return collected

    @typed(CampaignError)
    def deliver(
        self,
        to: "str | PathLike[str]",
        *,
        tiles: str | None = None,
        zoom: int | None = None,
        tile_zoom: int | None = None,
        outlines: bool = True,
        allow_missing: bool = False,
        verify: bool = False,
        license: str | None = None,  # noqa: A002, the word that STAC has for it
        providers: Sequence[str] | None = None,
        fields: Sequence[str] | None = None,
        arts: Mapping[str, str] | None = None,
        names: str | None = None,
        accuracy: "str | PathLike[str] | Mapping[str, Any] | None" = None,
        review: "geopandas.GeoDataFrame | None" = None,
        expected_area: bool | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> "Delivered":
        """Write the package that an archive takes; called again, only what has changed is written.

        Licence, providers, fields, values of ARTS and the expected area are kept in the package: None stands for those of an earlier
        delivery, and for none where there is none.

        Probability and its binary map as cloud-optimised GeoTIFFs, outlines in several formats, a fact sheet, caveats, provenance,
        a STAC collection, and last of all `SHA256SUMS`. Products alone, no pixel of an image. Outlines are collected
        first where that is needed. Another process that delivers into the same place is waited for.

        Parameters
        ----------
        to
            Folder or URL, empty or with an earlier delivery of the same.
        tiles
            Name of a registered tile matrix set, such as ``"WebMercatorQuad"`` or ``"UPSArcticWGS84Quad"``: each file is exactly a
            tile of it, called ``{z}/{x}/{y}.tif``. None for the map's own pixels, a file for each cell.
        zoom
            Zoom whose pixels the files have; None for the one nearest to the map's.
        tile_zoom
            Zoom whose tiles the files are; None for four above `zoom`, which makes 4096 px of a set of 256.
        outlines
            Deliver them.
        allow_missing
            Deliver a year of which cells are not done; the package names them.
        verify
            Read every GeoTIFF that is there, and write those anew whose digest differs; else sizes are compared.
        license
            Of SPDX, such as ``"CC-BY-4.0"`` or ``"CC-BY-4.0 OR MIT"``; ``"proprietary"``, or ``"other"``, which a new package has where
            nobody says it.
        providers
            Who made it, each as ``NAME`` or ``NAME=https://ADDRESS``.
        fields
            Inventories with whose fields outlines are delivered, too: ``"arts"`` and ``"darts"``.
        arts
            Fields of ARTS that are the same in every row, by name, such as ``{"RegionName": "Banks Island, Canada"}``; by default
            the region is the campaign's name, the creator its providers, and sources, days and resolution those of the map.
        names
            How tiles of a matrix set are called below their folder: ``"{z}/{x}/{y}"``, which None stands for, or ``"{col}_{row}"``.
        accuracy
            The `accuracy.json` of a reviewed sample, or what it holds, whose estimates and intervals the fact sheet states.
        review
            Outlines of this year with verdicts, as `MergedReview.table` of `merge_review` has them, in any CRS; complete, half done, or
            of a sample, whose `accuracy` is needed, too. Outlines get `verdict`, `agreement`, `review_date`, `is_corrected` and
            `is_added`: corrected ones are as reviewers have drawn them, and what they have added comes last. Refused ones are
            in the files, but not in totals, density grids and DARTS; of ARTS they are the rows of ``Negative``, and what nobody has
            decided is left out there.
        expected_area
            Deliver what `rtsx.evaluation.expected_area` computes, too: GeoTIFFs of the area that the map expects, m², by cells of 10 km of
            the map's CRS, or of 0.5 degrees where that is geographic.
        storage_options
            Storage options of the file system behind a URL, such as `endpoint_url` or `anon`; None for those of the output
            where both are in the same bucket.

        Raises
        ------
        CampaignError
            Cells are not done, there are no outlines, no such tile matrix set or zoom, or the licence is unknown, or the review is of
            another map or without a verdict, or left out though the package was delivered with one, as may be `accuracy`.
        MissingExtraError
            Tile matrix sets need the extra `deliver`.
        OutputExistsError
            Something else is there.
        OutputNotWritableError
            It cannot be written, or has no room.
        """
        from rtsx.campaign.products import DeliveryRequest, deliver_year

        to = os.fspath(to)
        marked = self.ledger.moments()
        to_options = self._options_at(to, storage_options)
        with turn(to, to_options, what=f"delivers into {to}"):
            request = DeliveryRequest(
                to=to,
                to_options=to_options,
                tiles=tiles,
                zoom=zoom,
                tile_zoom=tile_zoom,
                outlines=outlines,
                allow_missing=allow_missing,
                verify=verify,
                licence=license,
                providers=providers,
                fields=fields,
                arts=arts,
                names=names,
                accuracy=accuracy if accuracy is None or isinstance(accuracy, Mapping) else os.fspath(accuracy),
                review=review,
                expected_area=expected_area,
            )
            delivered = deliver_year(self, request)
        note_stage(self.objects, self.plan, "delivered", marked=marked)
        return delivered

    @typed(CampaignError)
    def copy(
        self,
        to: "str | PathLike[str]",
        *,
        years: Sequence[int] | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> "Copied":
        """Copy the campaign to another store, while it goes on running or not; called again, only what is new is written.

        A cell is done in the copy only once all its bytes are there, read back and held against their digests. Leases stay behind.
        The copy can be looked at, collected, delivered and gone on with as the campaign itself. Cells that were finished later there
        stay; anything else is as here.

        Parameters
        ----------
        to
            Folder or URL, empty or with an earlier copy of this campaign.
        years
            Which; None for all that are planned.
        storage_options
            Storage options of the file system behind a URL, such as `endpoint_url` or `anon`; None for those of the output
            where both are in the same bucket.

        Raises
        ------
        CampaignError
            No such year is planned, one place lies in the other, or another campaign is there.
        OutputExistsError
            Something else is there.
        OutputNotWritableError
            It cannot be written, or has no room.
        """
        from rtsx.campaign.copying import copy_campaign

        to = os.fspath(to)
        return copy_campaign(
            self.output,
            to,
            storage_options=self.storage_options,
            to_options=self._options_at(to, storage_options),
            years=years,
        )

    def cube(self) -> "xr.Dataset":
        """Open the layers of the whole map, lazily, with tiles aligned as the campaign aligns them.

        Predicted whole with the plan's tiles, it gives the bytes that the campaign writes cell by cell.

        Raises
        ------
        CampaignError
            The campaign was opened without its recipe.
        CubeError
            A source cannot be asked.
        """
        from rtsx.cube import open_source

        cube = open_source(self.required_recipe("The cube of its layers").cube, self.plan.geobox)
        return cube.assign_attrs(lattice_origin=list(self.plan.lattice_origin))

    def map(self) -> "xr.Dataset":
        """Open the map of all years, lazily; cells that are not done are invalid.

        Raises
        ------
        CubeError
            It cannot be opened.
        """
        from rtsx.campaign.map import open_map

        return open_map(self.output, storage_options=self.storage_options)

    def cells(self) -> "geopandas.GeoDataFrame":
        """List the cells of the plan with their state, in the CRS of the map; reads every commit record.

        Returns
        -------
        geopandas.GeoDataFrame
            `cell`, `state` (`mapped`, `empty`, `damaged` where its record cannot be read, `running`, `failed` or `left`), `reason`
            of what failed, and `geometry`.
        """
        from rtsx.campaign.report import cell_table

        return cell_table(self.ledger, self.plan, self.status())

    def outlines(self) -> "geopandas.GeoDataFrame":
        """Read the footprints of the year: those that were collected, else those of single cells, cut at their borders.

        Raises
        ------
        CampaignError
            A file of them is damaged.
        """
        from rtsx.campaign.products import stored_footprints

        return stored_footprints(self.objects, self.plan)

    def _options_at(self, to: str, storage_options: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Options of another place: those that were given, else those of the output in the same bucket."""
        return options_beside(to, self.output, self.storage_options) if storage_options is None else storage_options

    def required_recipe(self, what: str, *, with_bundles: bool = True) -> CampaignRecipe:
        """Sources and bundles of the campaign, for what cannot do without.

        Raises
        ------
        CampaignError
            It was opened from its output alone, or without bundles.
        """
        if self.recipe is None or (with_bundles and not self.recipe.bundles):
            raise CampaignError(
                f"{what} needs the sources and bundles of the campaign, and it was opened from its output alone, or without "
                "bundles. Use Campaign.create(recipe) with its bundles, which takes up what is there."
            )
        return self.recipe
