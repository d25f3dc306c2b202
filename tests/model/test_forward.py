import pytest
import torch

from rtsx.errors import BundleError
from rtsx.model.forward import in_batches_of, only_tensor


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


def test_several_tensors_are_refused():
    with pytest.raises(BundleError, match=r"has to return one tensor .* it returned a tuple. Wrap it"):
        only_tensor((torch.ones(1), torch.ones(1)))
