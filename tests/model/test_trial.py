import pytest
import torch

from rtsx.errors import BundleError
from rtsx.model.trial import looks_like_probabilities, try_network

CLASSES = ("target",)


class OfOneSize(torch.nn.Module):
    def forward(self, x):
        return x[:, :1].reshape(-1, 1, 256, 256)


class Answering(torch.nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


def test_a_small_tile_is_tried_first_and_the_own_one_next():
    assert try_network(torch.nn.Conv2d(2, 1, 1), n_layers=2, classes=CLASSES, tile=1024, stride=32).shape[-1] == 128
    assert try_network(OfOneSize(), n_layers=2, classes=CLASSES, tile=256, stride=1).shape[-1] == 256
    assert try_network(torch.nn.Conv2d(2, 1, 1), n_layers=2, classes=CLASSES, tile=16, stride=1).shape[-1] == 16


def test_a_wrong_number_of_layers_is_refused():
    with pytest.raises(BundleError, match=r"cannot run on 4 layers and a tile of 64 px: .*Check that the layers"):
        try_network(torch.nn.Conv2d(3, 1, 1), n_layers=4, classes=CLASSES, tile=64, stride=1)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: (x[:, :1], x), "has to return one tensor .*; it returned a tuple"),
        (lambda x: x[:, :2], r"With classes \['target'\] .* it returned \(1, 2, 64, 64\).*Name as many classes"),
        (lambda x: x[:, :1, ::4, ::4], r"it returned \(1, 1, 16, 16\).* at the resolution of its input"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(answer, message):
    with pytest.raises(BundleError, match=message):
        try_network(Answering(answer), n_layers=3, classes=CLASSES, tile=64, stride=1)


def test_probabilities_are_recognised():
    logits = torch.randn(1, 3, 8, 8)
    assert looks_like_probabilities(logits.softmax(1))
    assert looks_like_probabilities(logits[:, :1].sigmoid())
    assert not looks_like_probabilities(logits)
    assert not looks_like_probabilities(logits.sigmoid())  # independent classes sum to anything


def test_a_program_exported_for_a_number_of_tiles_gets_that_number():
    program = torch.export.export(torch.nn.Conv2d(2, 1, 1), (torch.rand(3, 2, 64, 64),)).module()
    assert try_network(program, n_layers=2, classes=CLASSES, tile=64, stride=1).shape == (3, 1, 64, 64)
