"""Stores of fetched pixels: a campaign runs from one without a network, and writes the bytes that it writes from the sources."""

import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp, Resampling

from rtsx.campaign import fetch
from rtsx.campaign.campaign import Campaign
from rtsx.campaign.cell_input import FetchedImages, cell_geobox
from rtsx.campaign.cells import Address, CellTable
from rtsx.campaign.fetch import FetchJob, _path, drop_changed, drop_damaged
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.run import CellUpdate
from rtsx.cube import (
    BandRequest,
    CubeRecipe,
    FileImages,
    LayerRecipe,
    QualityRecipe,
    SourceRecipe,
    TrendRecipe,
    mask_rule,
    open_source,
    write_cube,
)
from rtsx.cube.chunk_loader import collected_missing
from rtsx.cube.file_images import StoreImages
from rtsx.cube.images import GivenImages, Image
from rtsx.cube.load import find_images
from rtsx.cube.native import NativeGroup, native_groups, read_native
from rtsx.cube.recipe import TASSELED_CAP_BANDS, TREND_EXTRAS, TREND_LAYERS
from rtsx.errors import CampaignError, CubeError, MissingCoverageWarning
from rtsx.grid import Grid
from rtsx.storage import remove
from tests.campaign.plans import make_plan
from tests.campaign.small_campaign import (
    CELLS,
    GRID,
    LAYERS,
    damage,
    make_recipe,
    objects_below,
    region_of,
    rewrite_east,
    write_country,
)
from tests.campaign.test_searches import answer, item, searching
from tests.cube.scenes import CUBE, Ground, at, elevation, optical, trend
from tests.ordering.file_server import FileServer
from tests.servers import ScriptedServer

REGION = region_of(CELLS[1:3])
"""Two cells, of a file each."""


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Cuts the network from when it is called: every connection is refused, those of GDAL too, which opens sockets itself."""

    def refuse(*_: object) -> None:
        raise ConnectionRefusedError("The network is cut.")

    def cut() -> None:
        for name in ("connect", "connect_ex"):
            monkeypatch.setattr(socket.socket, name, refuse)
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "GDAL_HTTP_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")

    return cut


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "country").mkdir()
    return write_country(tmp_path / "country")


@pytest.fixture
def served(files: tuple[Path, Path]) -> tuple[CubeRecipe, Callable[[], None]]:
    """The recipe of the two files, on a server and found by a search of another; and what closes both."""
    server, searched = FileServer(files[0].parent), ScriptedServer()
    found: list[dict[str, Any]] = []
    for path in files:
        with rasterio.open(path) as file:
            found.append(item(path.stem, file.bounds, shape=file.shape, href=f"{server.url}/{path.name}"))
    answer(searched, found)

    def close() -> None:
        server.close()
        searched.close()

    return searching(searched.url), close


def ran(campaign: Campaign) -> dict[str, bytes]:
    """What a campaign writes, cell by cell, in this process."""
    summary = campaign.work()
    assert summary.complete, summary
    found = objects_below(Path(campaign.output))
    asked = "searches", "/items/", "/stages/"  # what a campaign notes of where its images came from
    return {name: one for name, one in found.items() if not any(part in name for part in asked)}


def inputs(campaign: Campaign) -> list[Any]:
    return sorted((mark.cell, mark.inputs, mark.gaps, mark.state) for mark in campaign.ledger.marks())


def test_without_a_network_a_campaign_writes_the_bytes_of_the_direct_run(
    served: tuple[CubeRecipe, Callable[[], None]],
    files: tuple[Path, Path],
    tmp_path: Path,
    no_network: Callable[[], None],
) -> None:
    cube, close = served
    direct = Campaign.create(make_recipe(files, str(tmp_path / "direct"), cube=cube, region=REGION))
    expected = ran(direct)
    campaign = Campaign.create(make_recipe(files, str(tmp_path / "cut"), cube=cube, region=REGION))
    fetched = campaign.fetch(tmp_path / "store")
    assert (fetched.run.done, fetched.cells, fetched.images, fetched.gaps) == (2, 2, 2, 0)
    close()
    no_network()
    for path in files:
        path.unlink()
    assert campaign.recipe is not None
    recipe = replace(campaign.recipe, fetched=str(tmp_path / "store"))
    cut = Campaign.create(recipe)
    assert cut.plan == campaign.plan
    assert cut.estimate().cells == 2
    assert ran(cut) == expected
    assert inputs(cut) == inputs(direct)
    update = CellUpdate(recipe=recipe, plan=cut.plan)
    assert {update(cell, 1, "run").state for cell in cut.plan.cells} == {"skipped"}
    with pytest.raises(CubeError):
        campaign.cube()


def job_of(cube: CubeRecipe, folder: Path, plan: CampaignPlan | None = None) -> FetchJob:
    """The job that fetches the cells of a plan into a store, without what runs the campaign."""
    plan = plan or make_plan()
    recipe = make_recipe((folder / "none.tif",), str(folder / "out"), cube=cube)
    return FetchJob(recipe=recipe, plan=plan, store=FetchedImages(str(folder / "store"), plan.year, plan.digest))


def pixels_of(cube: CubeRecipe, plan: CampaignPlan, cell: Address) -> list[np.ndarray]:
    """All variables of what a cell looks at."""
    found = open_source(cube, cell_geobox(plan, cell)).compute(scheduler="synchronous")
    return [found[name].values for name in sorted(map(str, found.data_vars))]


def file_cube(*files: Path, **changes: Any) -> CubeRecipe:
    resampling = changes.pop("resampling", "bilinear")
    layers = tuple(
        LayerRecipe(wanted=BandRequest(name=name, bands=(place,)), resampling=resampling)
        for place, name in enumerate(LAYERS, 1)
    )
    images = FileImages(assets={"image": tuple(map(str, files))})
    return CubeRecipe(grid=GRID, sources=(SourceRecipe(name="images", images=images, layers=layers, **changes),))


@pytest.fixture
def fine(tmp_path: Path) -> Path:
    """A file with overviews, four times finer than the grid, and a little off it."""
    path = tmp_path / "fine.tif"
    (west, _) = write_country(tmp_path)
    with rasterio.open(west) as file:
        pixels = file.read().repeat(4, axis=1).repeat(4, axis=2)
        transform = file.transform * file.transform.translation(0.37, 0.21) * file.transform.scale(0.25)
        profile = {**file.profile, "transform": transform, "height": pixels.shape[1], "width": pixels.shape[2]}
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels + (pixels > 0))
        file.build_overviews([2, 4], Resampling.mode)
    return path


def test_campaigns_of_other_grids_share_no_levels_of_an_image(fine: Path) -> None:
    recipe = file_cube(fine, resampling="average")
    (source,) = recipe.sources
    paths = []
    for factor in (1, 2, 4):
        cell = next(iter(job_of(recipe, fine.parent).plan.cells))
        cube = GRID[cell].geobox.zoom_out(1 / factor)
        (image,) = find_images(source, cube)
        groups = native_groups(image, source, path="", cube=cube, anchor=GRID.origin)
        paths.append(_path(source, image, "", groups=groups))
    assert len(set(paths)) == 3


def test_of_a_file_with_overviews_the_one_that_cells_read_is_fetched(fine: Path, tmp_path: Path) -> None:
    kinds = ["average", "bilinear", "cubic", "nearest"]
    jobs = [job_of(file_cube(fine, resampling=kind), tmp_path) for kind in kinds]
    cell = next(iter(jobs[0].plan.cells))
    expected = [pixels_of(job.recipe.cube, job.plan, cell) for job in jobs]
    sizes = []
    for job in jobs:
        job = replace(job, store=replace(job.store, path=f"{tmp_path}/{len(sizes)}"))
        assert job(cell, 1, "run").state == "done"
        record = job.store.record(cell)
        assert record is not None
        sizes.append(record.n_bytes)
    fine.unlink()
    assert sizes[:3] == [sizes[3] // 16] * 3
    for place, (job, pixels) in enumerate(zip(jobs, expected, strict=True)):
        store = replace(job.store, path=f"{tmp_path}/{place}")
        for one, other in zip(pixels_of(store.cube(job.recipe.cube, cell), job.plan, cell), pixels, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Blocks of 32 px; what is read of them is listed."""
    monkeypatch.setattr(fetch, "_SIDE", 32)
    read: list[str] = []

    def noted(group: NativeGroup, source: SourceRecipe, **window: slice) -> Iterator[tuple[str, Any]]:
        read.append(f"{group.image.id} {window['rows'].start} {window['columns'].start}")
        return read_native(group, source, **window)

    monkeypatch.setattr(fetch, "read_native", noted)
    return read


def blocks_of(job: FetchJob) -> set[str]:
    """Keys of all blocks that the cells of a plan read."""
    records = [job.store.record(cell) for cell in job.plan.cells]
    return {key for record in records if record is not None for key in record.blocks}


def test_several_fetch_at_once_and_only_what_cells_look_at(
    files: tuple[Path, Path], tmp_path: Path, small_blocks: list[str]
) -> None:
    plan = make_plan(cells=CellTable(np.array([CELLS[0], CELLS[1]], np.int32)))
    jobs = [job_of(file_cube(*files), tmp_path, plan) for _ in range(3)]
    with ThreadPoolExecutor(3) as threads:
        results = list(threads.map(lambda at: [jobs[at](one, 1, f"run {at}") for one in plan.cells], range(3)))
    assert not [one.failure for found in results for one in found if one.failure is not None]
    assert {one.state for found in results for one in found} <= {"done", "skipped", "leased"}
    store = jobs[0].store
    assert store.ledger.done() == set(plan.cells)
    assert len(small_blocks) == len(set(small_blocks)) == len(blocks_of(jobs[0]))  # each once
    assert max(int(one.split()[1]) for one in small_blocks) < 128  # nothing of the row of cells below
    assert not [path for path in (tmp_path / "store").rglob("leases/*") if path.is_file()]
    small_blocks.clear()
    wide = job_of(file_cube(*files), tmp_path)  # another plan, whose cells have a neighbour among these
    assert [wide(one, 1, "run").state for one in wide.plan.cells] == ["done"] * 3
    assert 0 < len(small_blocks) < len(blocks_of(wide))


def test_what_was_stopped_or_damaged_is_fetched_again_and_nothing_else(
    files: tuple[Path, Path], tmp_path: Path, small_blocks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(file_cube(*files), tmp_path)
    cells = list(job.plan.cells)
    expected = [pixels_of(job.recipe.cube, job.plan, cell) for cell in cells]
    noted, reads = fetch.read_native, iter(range(10**6))

    def failing(*given: Any, **window: slice) -> Any:
        if next(reads) == 9:
            raise OSError("The disk is away.")
        return noted(*given, **window)

    monkeypatch.setattr(fetch, "read_native", failing)
    assert [job(cell, 1, "run").state for cell in cells] == ["failed", "done", "done"]
    with pytest.raises(CampaignError, match="lacks 1 of the 3 cells"):
        job.store.require_all(job.plan)
    assert [job(cell, 1, "run").state for cell in cells] == ["done", "skipped", "skipped"]
    job.store.require_all(job.plan)
    n_blocks = len(small_blocks)
    assert n_blocks == len(set(small_blocks))
    chunks = [path for path in (tmp_path / "store" / "pixels.zarr").rglob("c/*/*") if path.is_file()]
    assert len(chunks) == 2 * n_blocks
    chunks[0].write_bytes(b"")
    chunks[-1].unlink()
    small_blocks.clear()
    found = drop_damaged(job.store)
    assert found in (1, 2)  # blocks, of which each has two arrays
    states = [job(cell, 1, "run").state for cell in cells]
    assert "done" in states
    assert len(small_blocks) == found
    assert drop_damaged(job.store) == 0
    for path in files:
        path.unlink()
    for cell, pixels in zip(cells, expected, strict=True):
        for one, other in zip(pixels_of(job.store.cube(job.recipe.cube, cell), job.plan, cell), pixels, strict=True):
            np.testing.assert_array_equal(one, other)


def test_cells_whose_images_changed_are_fetched_again(files: tuple[Path, Path], tmp_path: Path) -> None:
    job = job_of(file_cube(*files), tmp_path)
    cube, cells = job.recipe.cube, list(job.plan.cells)
    assert [job(cell, 1, "run").state for cell in cells] == ["done"] * 3
    rewrite_east(files[1])
    drop_changed(job.store, cube, job.plan, now=lambda _: cube)
    assert [job(cell, 1, "run").state for cell in cells] == ["skipped", "done", "done"]
    for cell in cells:
        for one, other in zip(
            pixels_of(job.store.cube(cube, cell), job.plan, cell), pixels_of(cube, job.plan, cell), strict=True
        ):
            np.testing.assert_array_equal(one, other)


def test_a_block_that_is_not_there_is_an_error_and_no_ground_without_data(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    job = job_of(file_cube(*files), tmp_path)
    cell = next(iter(job.plan.cells))
    assert job(cell, 1, "run").state == "done"
    for path in (tmp_path / "store" / "pixels.zarr").rglob("c/*/*"):
        path.unlink()
    with pytest.raises(CubeError, match="has no chunk"):
        pixels_of(job.store.cube(job.recipe.cube, cell), job.plan, cell)


def test_an_image_that_cannot_be_read_is_the_gap_or_the_error_that_it_is(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    damage(files[0])
    job = job_of(file_cube(*files), tmp_path)
    failing = job(CELLS[0], 1, "run").failure
    assert failing is not None
    assert "west" in failing.message
    job = job_of(file_cube(*files, unreadable="gap"), tmp_path)
    with pytest.warns(MissingCoverageWarning), collected_missing() as gaps:
        expected = pixels_of(job.recipe.cube, job.plan, CELLS[0])
    with pytest.warns(MissingCoverageWarning):
        assert job(CELLS[0], 1, "run").state == "done"
    with pytest.warns(MissingCoverageWarning), collected_missing() as gaps_of_store:
        found = pixels_of(job.store.cube(job.recipe.cube, CELLS[0]), job.plan, CELLS[0])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert set(gaps_of_store) == set(gaps) != set()


def test_what_cannot_be_fetched_or_run_says_so(files: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = make_recipe(files, str(tmp_path / "out"), fetched=str(tmp_path / "store"))
    with pytest.raises(CampaignError, match="holds no plan of 2024"):
        Campaign.create(recipe)
    campaign = Campaign.create(replace(recipe, fetched=None))
    with pytest.raises(CampaignError, match="lacks 6 of the 6 cells"):
        Campaign.create(recipe)
    (source,) = recipe.cube.sources
    foreign = replace(recipe.cube, sources=(replace(source, reader="stackstac"),))
    with pytest.raises(CampaignError, match="read by stackstac"):
        FetchJob(recipe=replace(recipe, cube=foreign), plan=campaign.plan, store=FetchedImages("a", 2024, "b"))


def test_what_is_planned_is_fetched_without_bundles_and_nothing_else_is(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe = make_recipe(files, str(tmp_path / "out"))
    without = replace(recipe, bundles=())
    with pytest.raises(CampaignError, match="at least one bundle to be planned"):
        Campaign.create(without)
    planned, taken = Campaign.create(recipe), Campaign.create(without, config="name: small")
    assert taken.plan == planned.plan
    assert taken.objects.get(YearLayout(taken.plan.year).config) == b"name: small"
    (source,) = recipe.cube.sources
    other = replace(recipe.cube, sources=(replace(source, layers=source.layers[:1]),))
    for changes, said in (({"region": REGION}, "4 cells are missing"), ({"cube": other}, "the layers changed")):
        with pytest.raises(CampaignError, match=said):
            Campaign.create(replace(without, **changes))
    with pytest.raises(CampaignError, match="without bundles"):
        taken.work()


CELL_GRID = Grid.arctic(resolution=10, cell_size=64)
"""Of the ground of `Ground`, in the middle of which two of its cells lie."""
MIDDLE = CellTable(np.array([[625, -3282], [625, -3281]], np.int32))


def masked_image(ground: Ground, name: str, *, alpha: bool) -> Image:
    """Two files of whole numbers without nodata, of which each says by a mask or an alpha band of its own what is missing."""
    bands = {}
    for layer in ("red", "nir"):
        pixels = ground.rng.integers(0, 255, (1 + alpha, 150, 150)).astype(np.uint8)
        seen = np.kron(ground.rng.random((15, 15)) < 0.7, np.ones((10, 10), bool))
        pixels[1:] = np.where(seen, 255, 0)
        one = ground.raster(f"{name}_{layer}", pixels, crs="EPSG:32607", pixel=9.0, nodata=None)
        with rasterio.open(one.href, "r+") as file:
            if alpha:
                file.colorinterp = [ColorInterp.gray, ColorInterp.alpha]
            else:
                file.write_mask(seen)
        bands[layer] = replace(one, bands=(1,))
    return Image(id=name, bands=bands)


def damaged_image(ground: Ground) -> Image:
    """A scene of which one block of 64 px in the middle cannot be read."""
    image = ground.scene("damaged", cloud=1.0)
    path = Path(image.bands["red"].href)
    with rasterio.open(path) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    with path.open("r+b") as file:
        file.truncate(offset + 10)
    return image


def turned_image(ground: Ground) -> Image:
    image = ground.scene("turned")
    bands = {}
    for name, one in image.bands.items():
        middle = Affine.translation(75, 75) * Affine.rotation(33) * Affine.translation(-75, -75)
        box = GeoBox(one.geobox.shape, one.geobox.affine * middle, one.geobox.crs)
        with rasterio.open(one.href, "r+") as file:
            file.transform = box.affine
        bands[name] = replace(one, geobox=box)
    return replace(image, bands=bands)


def with_overviews(image: Image) -> Image:
    with rasterio.open(next(iter(image.bands.values())).href, "r+") as file:
        file.build_overviews([2, 4], Resampling.average)
    return image


def fine_image(ground: Ground, *, off: float) -> Image:
    """Pixels of a quarter of the grid's, on the corners of its pixels or beside them, with overviews."""
    pixels = ground.rng.integers(0, 9000, (2, 600, 600)).astype(np.uint16)
    pixels[:, 200:230, 100:400] = 0
    bands = ground.raster("fine", pixels, crs=CELL_GRID.crs, pixel=2.5, nodata=0, shift=(off, off))
    return with_overviews(Image(id="fine", bands={n: replace(bands, bands=(b,)) for b, n in enumerate(LAYERS, 1)}))


def scl(ground: Ground) -> SourceRecipe:
    """Two baselines of Sentinel-2 in two zones, with SCL of twice the pixel, and a duplicate."""
    images = []
    for place, (crs, offset) in enumerate((("EPSG:32607", 0.0), ("EPSG:32608", -0.1), ("EPSG:32607", -0.1))):
        image = ground.scene(f"s2_{place}", crs=crs, offset=offset, time=at(f"2024-07-1{place}"), cloud=10.0 * place)
        classes = ground.rng.choice([4, 5, 8, 9, 3], (1, 75, 75), p=[0.4, 0.3, 0.1, 0.1, 0.1]).astype(np.uint8)
        quality = ground.raster(f"scl_{place}", classes, crs=crs, pixel=18.0, nodata=0)
        images.append(replace(image, bands={**{n: image.bands[n] for n in LAYERS}, "scl": quality}))
    quality_of = QualityRecipe(wanted=BandRequest(name="scl"), rule=mask_rule("sentinel2-scl", data=None), erode_m=25.0)
    return plain(images, composite="median", quality=quality_of)


def plain(images: Sequence[Image], **fields: Any) -> SourceRecipe:
    resampling = fields.pop("resampling", "bilinear")
    layers = tuple(LayerRecipe(wanted=BandRequest(name=name), resampling=resampling) for name in LAYERS)
    return SourceRecipe(name="scenes", images=GivenImages(images), layers=layers, **fields)


def landsat(ground: Ground, **changes: Any) -> SourceRecipe:
    """Scenes of two zones, whose items state no packing."""
    images = []
    for place in range(8):
        crs = f"EPSG:3260{7 + place % 2}"
        pixels = ground.rng.integers(8000, 12000, (6, 60, 60)).astype(np.uint16)
        pixels[:, ground.rng.random((60, 60)) < 0.1] = 0
        bands = ground.raster(f"l_{place}", pixels, crs=crs, pixel=30.0, nodata=0)
        qa = np.where(ground.rng.random((1, 60, 60)) < 0.1, 22280, 21824).astype(np.uint16)
        held = {name: replace(bands, bands=(b,), nodata=None) for b, name in enumerate(TASSELED_CAP_BANDS, 1)}
        held["qa_pixel"] = ground.raster(f"qa_{place}", qa, crs=crs, pixel=30.0, nodata=None)
        images.append(Image(id=f"LC08_{place}", bands=held, time=at(f"{2008 + place}-07-15"), platform="landsat-8"))
    quality = QualityRecipe(
        wanted=BandRequest(name="qa_pixel"), rule=mask_rule("landsat-qa-pixel", data=None), **changes
    )
    layers = tuple(LayerRecipe(wanted=BandRequest(name=name), resampling="nearest") for name in TASSELED_CAP_BANDS)
    trend = TrendRecipe(window=(2005, 2019), resampling="cubic", dtype="float32", layers=(*TREND_LAYERS, *TREND_EXTRAS))
    return SourceRecipe(name="trend", images=GivenImages(images), layers=layers, quality=quality, trend=trend)


def from_zarr(ground: Ground) -> SourceRecipe:
    """A cube of whole numbers without nodata, of which `valid` says what is missing."""
    source = plain([masked_image(ground, "masked", alpha=False)])
    cube = open_source(CubeRecipe(grid=GRID, sources=(source,)), CUBE)
    path = ground.folder / "cube.zarr"
    write_cube(cube, str(path))
    return replace(source, images=StoreImages(path=str(path)))


SOURCES: dict[str, Callable[[Ground], SourceRecipe]] = {
    "two zones": lambda g: optical([g.scene("a", shift=(-300, 0)), g.scene("b", crs="EPSG:32608", shift=(300, 40))]),
    "times": lambda g: optical([g.scene(d, time=at(d)) for d in ("2024-07-01", "2024-08-01")], group="day"),
    "eroded": lambda g: optical([g.scene("a"), g.scene("b", crs="EPSG:32608")], erode_m=40.0, composite="best"),
    "SCL of two baselines": scl,
    "mean": lambda g: optical([g.scene("a", offset=-0.1), g.scene("b")], composite="mean", resampling="cubic"),
    "medoid": lambda g: optical([g.scene(str(n), time=at(f"2024-07-0{n}")) for n in (1, 2, 3)], composite="medoid"),
    "masks": lambda g: plain([masked_image(g, "a", alpha=False), masked_image(g, "b", alpha=False)]),
    "alpha": lambda g: plain([masked_image(g, "a", alpha=True)]),
    "masked, nearest": lambda g: plain([masked_image(g, "a", alpha=False)], resampling="nearest"),
    "turned": lambda g: optical([turned_image(g)], resampling="average"),
    "overview on the grid": lambda g: plain([fine_image(g, off=0.0)], resampling="average"),
    "overview beside it": lambda g: plain([fine_image(g, off=3.1)], resampling="cubic"),
    "degrees": lambda g: trend([g.trends("tcvis")]),
    "elevation": lambda g: elevation(
        [g.heights("a", shift=(-900, 0)), g.heights("b", shift=(900, 300))], keep_dem=True
    ),
    "elevation on the cube's grid": lambda g: elevation([g.heights("a")], terrain_grid="cube"),
    "trend of two zones": landsat,
    "trend, eroded": lambda g: landsat(g, erode_m=60.0),
    "cube": from_zarr,
    "damaged": lambda g: optical([damaged_image(g), g.scene("whole", cloud=50.0)], unreadable="gap"),
}


@pytest.mark.filterwarnings("ignore::rtsx.errors.MissingCoverageWarning")
@pytest.mark.parametrize("kind", SOURCES)
def test_what_cells_read_from_a_store_is_what_they_read_from_their_sources(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_SIDE", 64)
    ground = Ground(tmp_path)
    cube = CubeRecipe(grid=CELL_GRID, sources=(SOURCES[kind](ground),), chunk=40)
    plan = make_plan(grid=CELL_GRID, rows=(625, 626), columns=(-3282, -3280), cells=MIDDLE)
    job = job_of(cube, tmp_path, plan)
    cells = list(plan.cells)
    expected = [pixels_of(cube, plan, cell) for cell in cells]
    for cell in cells:
        assert (result := job(cell, 1, "run")).state == "done", result.failure
    for path in (*tmp_path.glob("*.tif*"), *tmp_path.glob("cube.zarr")):
        remove(path)
    assert any(len(np.unique(one)) > 3 for one in expected[0])
    for cell, pixels in zip(cells, expected, strict=True):
        for one, other in zip(pixels_of(job.store.cube(cube, cell), plan, cell), pixels, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
