"""What a network is trained on is what it will be shown: the same numbers, to the last bit."""

import json

import numpy as np
import pytest
import torch

from rtsx import ModelBundle, predict_cube
from rtsx.inference.plan import PredictionPlan
from rtsx.labels import IGNORED
from rtsx.training.dataset import TileReader
from rtsx.training.sampler import TileAddress
from tests.training.scenes import INPUTS, make_scene

SEEN: list[torch.Tensor] = []


class Watching(torch.nn.Module):
    """Remembers every tile that it is shown, of all copies of it that a bundle makes."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        if batch.device.type != "meta":  # on which a bundle only looks at shapes
            SEEN.extend(batch.clone().unbind(0))
        return batch[:, :1] * 0


@pytest.mark.parametrize("is_lazy", [False, True])
@pytest.mark.parametrize("fill", [0.0, -3.0])
@pytest.mark.parametrize("shape", [(90, 120), (90, 20)])
def test_channels_are_those_that_inference_feeds_the_network(is_lazy, fill, shape):
    scene = make_scene(shape=shape, chunks=37 if is_lazy else None)
    bundle = ModelBundle.from_module(Watching(), inputs=INPUTS, tile=32, overlap=8, stride=4, fill=fill)
    SEEN.clear()
    found = predict_cube(scene.cube, bundle, tile=32, overlap=8, batch_size=2, device="cpu", backend="eager").compute()
    plan = PredictionPlan.from_json(found.attrs["plan"])
    tiles = [tile for tile in plan.tiling if found["valid"].values[tile.support].any()]
    reader = TileReader([scene], inputs=INPUTS, tile=32, cache_bytes=10**7)
    batch = reader.read([TileAddress(0, tile.start) for tile in tiles])
    shown = {tile.numpy().tobytes() for tile in SEEN}
    read = {tile.numpy().tobytes() for tile in batch.channels(INPUTS, fill=fill)}
    assert len(read) == len(tiles) > 3
    assert read == shown


def test_what_inference_calls_invalid_is_not_learnt_from():
    scene = make_scene(ignored=0.0)
    bundle = ModelBundle.from_module(Watching(), inputs=INPUTS, tile=32, overlap=8, stride=4)
    valid = predict_cube(scene.cube, bundle, tile=32, overlap=8, device="cpu", backend="eager")["valid"].values
    batch = TileReader([scene], inputs=INPUTS, tile=32, cache_bytes=0).read([TileAddress(0, (20, 30))])
    np.testing.assert_array_equal(batch.valid[0].numpy(), valid[20:52, 30:62])
    np.testing.assert_array_equal(batch.target()[0].numpy() == IGNORED, ~valid[20:52, 30:62])


def test_a_batch_moves_with_all_that_it_has():
    batch = TileReader([make_scene()], inputs=INPUTS, tile=32, cache_bytes=0).read([TileAddress(0, (0, 0))])
    moved = batch.to(torch.device("meta"))
    assert {moved.stored.device.type, moved.valid.device.type, moved.truth.device.type} == {"meta"}
    assert moved.layers == batch.layers
    assert json.dumps({name: packing.scale_factor for name, packing in moved.packings.items()})
