import pytest
import torch

from rtsx.errors import BundleError
from rtsx.model.backends import in_batches_of, in_largest_batches, only_tensor


@pytest.mark.parametrize("n_tiles", [1, 3, 4, 9])
def test_fixed_batches_answer_like_one_large_batch(n_tiles):
    sizes = []
    buffer = torch.empty(4, 2, 8, 8)

    def of_four(batch):
        sizes.append(len(batch))
        return torch.mul(batch, 3, out=buffer)  # a backend that hands out the same buffer every time

    tiles = torch.rand(n_tiles, 2, 8, 8)
    assert torch.equal(in_batches_of(of_four, 4)(tiles), tiles * 3)
    assert set(sizes) == {4}
    assert len(sizes) == -(-n_tiles // 4)


def test_short_batches_are_filled_up_to_the_largest_of_their_tile_size():
    sizes = []

    def forward(batch):
        sizes.append((len(batch), batch.shape[-1]))
        return batch * 3

    filled = in_largest_batches(forward)
    for n_tiles, side in ((4, 8), (3, 8), (1, 16), (4, 8)):
        tiles = torch.rand(n_tiles, 2, side, side)
        assert torch.equal(filled(tiles), tiles * 3)
    assert sizes == [(4, 8), (4, 8), (1, 16), (4, 8)]


def test_a_size_that_ran_out_of_memory_is_not_filled_up_to_again():
    sizes = []

    def forward(batch):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("no room")
        return batch

    filled = in_largest_batches(forward)
    with pytest.raises(torch.OutOfMemoryError):
        filled(torch.rand(4, 1, 8, 8))
    assert len(filled(torch.rand(2, 1, 8, 8))) == 2
    assert sizes == [4, 2]


def test_several_tensors_are_refused():
    with pytest.raises(BundleError, match=r"has to return one tensor .* it returned a tuple. Wrap it"):
        only_tensor((torch.ones(1), torch.ones(1)))
