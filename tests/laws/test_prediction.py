"""Laws of prediction: only data, model, tile, overlap, blend and lattice decide the answer.

Held on random cubes with invalid pixels, against the network run once over the whole scene, padded by reflection.
The network has a stride and a finite reach: a pointwise one would pass every one of these whatever the code did.
"""

from typing import ClassVar

import dask
import numpy as np
import pytest
import torch
import xarray as xr
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from rtsx import ModelBundle, predict_cube
from rtsx.tiling import TilePlan
from tests.campaign import random_campaign

STRIDE = random_campaign.STRIDE
REACH = 8
"""Pixels: one for each 3 x 3 convolution at full size, four for the one at a quarter, and what a cell of it spans."""


class Strided(random_campaign.Strided):
    """Counts the tiles that it sees."""

    # Of the class, because a bundle runs copies of the module that it was made from.
    tiles = 0

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        Strided.tiles += len(batch)
        return super().forward(batch)


def make_bundle(module: torch.nn.Module | None = None, **changes: object) -> ModelBundle:
    values = {"layers": ("red", "dem"), "classes": ("target",), "tile": 32, "overlap": 16, "stride": STRIDE}
    return ModelBundle.from_module(module or Strided(), **(values | changes))


def make_cube(shape: tuple[int, int], *, seed: int = 0, offset: tuple[int, int] = (0, 0)) -> xr.Dataset:
    random = np.random.default_rng(seed)
    red = random.integers(1, 10_000, shape).astype(np.uint16)
    dem = random.normal(0, 1, shape).astype(np.float32)
    red[random.random(shape) < 0.1] = 0
    dem[random.random(shape) < 0.05] = np.nan
    red[: shape[0] // 2, : shape[1] // 2] = 0  # enough in one piece for tiles to be empty
    geobox = GeoBox(shape, Affine(3, 0, 3 * offset[1], 0, -3, -3 * offset[0]), "EPSG:3413")
    layers = {"red": (("y", "x"), red, {"scale_factor": 1e-4, "_FillValue": 0}), "dem": (("y", "x"), dem)}
    return xr.Dataset(layers, attrs={"lattice_origin": [0.0, 0.0]}).assign_coords(xr_coords(geobox, always_yx=True))


def channels(cube: xr.Dataset) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    red, dem = cube["red"].values, cube["dem"].values
    valid = (red != 0) & np.isfinite(dem)
    return np.stack([np.where(valid, red * 1e-4, 0), np.where(valid, dem, 0)]).astype(np.float32), valid


def whole_scene(cube: xr.Dataset, module: torch.nn.Module, offset: tuple[int, int]) -> NDArray[np.float32]:
    """The network's answer over everything at once, on the lattice, padded by reflection; NaN where invalid."""
    batch, valid = channels(cube)
    before = [16 + first % STRIDE for first in offset]
    after = [16 + -(length + first) % STRIDE for length, first in zip(valid.shape, offset, strict=True)]
    padded = np.pad(batch, ((0, 0), *zip(before, after, strict=True)), mode="reflect")
    with torch.no_grad():
        answer = torch.sigmoid(module(torch.from_numpy(padded)[None]))[0, 0].numpy()
    inner = answer[before[0] : before[0] + valid.shape[0], before[1] : before[1] + valid.shape[1]]
    return np.where(valid, inner, np.nan)


shapes = st.tuples(st.integers(1, 120), st.integers(1, 120))
offsets = st.tuples(st.integers(-200, 200), st.integers(-200, 200))


@pytest.mark.slow
@settings(max_examples=7, deadline=None)
@given(shapes, offsets, st.integers(0, 2**31), st.data())
def test_law_2_chunks_change_nothing(
    shape: tuple[int, int], offset: tuple[int, int], seed: int, data: st.DataObject
) -> None:
    cube = make_cube(shape, seed=seed, offset=offset)
    chunks = {name: data.draw(st.integers(8, 130), label=name) for name in ("y", "x")}
    blend = data.draw(st.sampled_from(["linear", "hann", "gaussian", "crop", "max"]))
    options = {"tile": 32, "overlap": 16, "blend": blend, "dtype": "float32"}
    whole = predict_cube(cube, make_bundle(), **options)
    lazy = predict_cube(cube.chunk(chunks), make_bundle(), **options)
    assert lazy["probability"].chunks is not None
    xr.testing.assert_identical(lazy.compute(), whole)


class Shaped(torch.nn.Module):
    """Answers by how many tiles come together, as the arithmetic of a GPU may; memory ends at a call that is named."""

    # Of the class, because a bundle runs copies of the module that it was made from.
    seen: ClassVar[list[int]] = []
    fails_at = 0

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(batch))
        if len(self.seen) == Shaped.fails_at:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return batch[:, :1] * (1 - len(batch) / 10_000)  # more is no rounding, and refused


@pytest.mark.parametrize(("tile", "batch_size"), [(16, 64), (32, 16), (64, 4)])
def test_law_2_where_the_batch_decides_the_answer(tile: int, batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither chunks, memory that ends once nor running the rest alone change a bit, and batches are full: a sixteenth of 256/64, 512/128 and
    1024/256 on chunks of 1024."""
    cube, bundle = make_cube((256, 448)), make_bundle(Shaped())
    plan = {"tile": tile, "overlap": tile // 4}
    options = {**plan, "trim": 0, "dtype": "float32", "batch_size": batch_size}
    whole = predict_cube(cube, bundle, **options)
    for chunk, scheduler, fails_at in ((64, "threads", 0), (64, "synchronous", 4), (100, "threads", 2)):
        Shaped.seen.clear()
        monkeypatch.setattr(Shaped, "fails_at", fails_at)
        lazy = predict_cube(cube.chunk(y=chunk, x=chunk), bundle, **options)
        with dask.config.set(scheduler=scheduler, num_workers=2):
            xr.testing.assert_identical(lazy.compute(), whole)
            if fails_at:  # what is left when a run is stopped, and runs alone
                left = {"y": slice(130, None), "x": slice(70, 400)}
                xr.testing.assert_identical(lazy.isel(left).compute(), whole.isel(left))
        assert set(Shaped.seen) == {batch_size}
        if not fails_at:
            n_tiles = non_empty_tiles(cube, **plan, trim=0)
            # The last ones are not full, nor those for which no thread could read on; a batch for each chunk would be 28.
            assert len(Shaped.seen) <= 1.25 * n_tiles / batch_size + 3


@settings(max_examples=7, deadline=None)
@given(shapes, offsets, st.integers(0, 2**31), st.sampled_from([{"blend": "crop"}, {"trim": REACH}, {"trim": 7}]))
def test_law_2_enough_trim_gives_the_whole_scene_answer(
    shape: tuple[int, int], offset: tuple[int, int], seed: int, joined: dict[str, object]
) -> None:
    cube = make_cube((shape[0] + 32, shape[1] + 32), seed=seed, offset=offset)
    module = Strided()
    found = predict_cube(cube, make_bundle(module), tile=40, overlap=16, dtype="float32", **joined)
    np.testing.assert_allclose(found["probability"], whole_scene(cube, module, offset), atol=1e-6)


def test_too_little_trim_does_not() -> None:
    # The counterpart of the law: were the stub pointwise, or the reference wrong, this would agree as well.
    cube, module = make_cube((100, 100)), Strided()
    found = predict_cube(cube, make_bundle(module), tile=40, overlap=16, trim=0, dtype="float32")
    assert np.nanmax(np.abs(found["probability"].values - whole_scene(cube, module, (0, 0)))) > 1e-3


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 2**31))
def test_law_2_a_part_of_a_cube_is_answered_like_the_whole(y: int, x: int, seed: int) -> None:
    cube = make_cube((120, 120), seed=seed)
    options = {"tile": 32, "overlap": 16, "trim": REACH, "dtype": "float32"}
    whole = predict_cube(cube, make_bundle(), **options)
    part = predict_cube(cube.isel(y=slice(y, None), x=slice(x, None)), make_bundle(), **options)
    # Away from the new edge, where the cut-out has to be padded and the whole does not.
    inner = {"y": slice(REACH, None), "x": slice(REACH, None)}
    xr.testing.assert_equal(part.isel(inner), whole.isel(y=slice(y, None), x=slice(x, None)).isel(inner))


@pytest.mark.slow
@pytest.mark.parametrize("blend", ["linear", "hann", "gaussian", "crop", "max"])
@pytest.mark.parametrize("trim", [None, 0])
def test_a_constant_network_gives_a_constant(blend: str, trim: int | None) -> None:
    class Constant(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return torch.full_like(batch[:, :1], 0.5)

    bundle = make_bundle(Constant(), activation="none")
    options = {} if blend == "crop" else {"trim": trim}
    found = predict_cube(make_cube((100, 90)), bundle, tile=32, overlap=24, blend=blend, dtype="float32", **options)
    answer = found["probability"].values[found["valid"].values]
    np.testing.assert_allclose(answer, 0.5, atol=1e-6)
    assert (found["binary"].values[found["valid"].values] == 1).all(), "exactly the threshold counts as found"


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**31))
def test_law_4_what_hides_under_the_mask_never_matters(seed: int) -> None:
    cube = make_cube((90, 70), seed=seed)
    random = np.random.default_rng(seed + 1)
    mask = random.random((90, 70)) < 0.7
    cube["valid"] = (("y", "x"), mask)
    _, valid = channels(cube)
    hidden = ~(valid & mask)
    other = cube.copy(deep=True)
    for value, name in ((65535, "red"), (np.inf, "dem")):
        layer = other[name].values
        # Keep what marks a pixel as invalid, change everything else that is hidden.
        marker = (layer == 0) if name == "red" else np.isnan(layer)
        layer[hidden & ~marker] = value
    one, two = (predict_cube(c, make_bundle(), tile=32, overlap=16) for c in (cube, other))
    xr.testing.assert_equal(one, two)
    assert (one["probability"].values[hidden] == 255).all()
    assert (one["binary"].values[hidden] == 255).all()
    assert (one["probability"].values[~hidden] <= 100).all()
    np.testing.assert_array_equal(one["valid"], ~hidden)


def non_empty_tiles(cube: xr.Dataset, **plan: int) -> int:
    _, valid = channels(cube)
    return sum(valid[tile.support].any() for tile in TilePlan(shape=valid.shape, stride=STRIDE, **plan))


@pytest.mark.parametrize("chunks", [None, {"y": 50, "x": 50}, {"y": 7, "x": 200}, {"y": 200, "x": 13}])
def test_every_tile_with_a_valid_pixel_runs_exactly_once(chunks: dict[str, int] | None) -> None:
    cube = make_cube((150, 130))
    expected = non_empty_tiles(cube, tile=32, overlap=16, trim=2)
    assert 0 < expected < len(TilePlan(shape=(150, 130), stride=STRIDE, tile=32, overlap=16, trim=2))
    bundle = make_bundle()
    network = bundle.network(device="cpu", precision="auto", backend="eager")
    assert network is bundle.network(device="cpu", precision="auto", backend="eager")
    Strided.tiles = 0
    predict_cube(cube if chunks is None else cube.chunk(chunks), bundle, tile=32, overlap=16, backend="eager").compute()
    assert Strided.tiles == expected


def test_a_cube_without_a_valid_pixel_runs_nothing() -> None:
    cube = make_cube((60, 60))
    cube["dem"].values[:] = np.nan
    bundle = make_bundle()
    Strided.tiles = 0  # making a bundle tries its network once
    found = predict_cube(cube, bundle, tile=32, overlap=16, backend="eager")
    assert Strided.tiles == 0
    assert (found["probability"] == 255).all()
    assert not found["valid"].any()


def test_a_far_reaching_network_needs_its_reach_and_gets_it_from_auto() -> None:
    class Far(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            # Looks exactly 21 px away in each direction, and nowhere else.
            padded = torch.nn.functional.pad(batch, (21,) * 4)
            return 3 * (padded[:, :1, 42:, 42:] - padded[:, 1:, : batch.shape[2], : batch.shape[3]])

    cube, module = make_cube((200, 180)), Far()
    bundle = make_bundle(module, stride=1, tile=64, overlap=16)
    batch, valid = channels(cube)
    padded = np.pad(batch, ((0, 0), (21, 21), (21, 21)), mode="reflect")
    exact = 1 / (1 + np.exp(-3 * (padded[0, 42:, 42:] - padded[1, :-42, :-42])))
    auto = predict_cube(cube, bundle, dtype="float32")
    np.testing.assert_allclose(auto["probability"], np.where(valid, exact, np.nan), atol=1e-6)
    bundled = predict_cube(cube, bundle, tile="bundle", overlap="bundle", dtype="float32")
    assert np.nanmax(np.abs(bundled["probability"].values - auto["probability"].values)) > 0.01


@settings(max_examples=6, deadline=None)
@given(st.tuples(st.integers(1, 56), st.integers(1, 56)), st.integers(0, 2**31))
@example((1, 1), 0)
@example((3, 50), 0)
@example((56, 56), 0)
def test_a_cube_within_one_tile_is_answered_as_that_tile(shape: tuple[int, int], seed: int) -> None:
    cube, module = make_cube(shape, seed=seed), Strided()
    found = predict_cube(cube, make_bundle(module), tile=64, overlap=32, trim=4, dtype="float32", backend="eager")
    batch, valid = channels(cube)
    # The tile begins at its trim before the cube, and sees it mirrored on all sides.
    padded = np.pad(batch, ((0, 0), *((4, 60 - length) for length in shape)), mode="reflect")
    with torch.no_grad():
        answer = torch.sigmoid(module(torch.from_numpy(padded)[None]))[0, 0, 4 : 4 + shape[0], 4 : 4 + shape[1]].numpy()
    np.testing.assert_allclose(found["probability"], np.where(valid, answer, np.nan), atol=1e-6)
