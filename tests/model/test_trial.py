import pytest
import torch

from rtsx.errors import BundleError
from rtsx.model.inputs import InputLayer
from rtsx.model.open import check_output, try_network
from rtsx.model.smp import build_network

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


INPUTS = tuple(InputLayer.from_statistics(name, mean=0.1, std=0.05) for name in ("red", "green", "nir"))


def check(answer, *, activation=None, channels=2, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, channels, 1)
        )
    network = torch.nn.Sequential(head, Answering(answer)).eval()
    check_output(network, inputs=INPUTS, side=32, activation=activation, described="The file")


PROBABILITIES = {
    "sigmoid": lambda x: x.sigmoid(),
    "softmax": lambda x: x.softmax(1),
    "softmax, one class": lambda x: x.softmax(1)[:, 1:],
    "hardsigmoid": torch.nn.functional.hardsigmoid,
    "clipped": lambda x: x.sigmoid().clamp(1e-4, 1 - 1e-4),
    "half": lambda x: x.sigmoid().half().float(),
    "mean of two": lambda x: (x.sigmoid() + x.flip(-1).sigmoid()) / 2,
    "resized": lambda x: torch.nn.functional.interpolate(x[..., ::2, ::2].softmax(1), scale_factor=2, mode="bilinear"),
    "rare": lambda x: (x - x.abs().amax() - 9).sigmoid(),
    "complement": lambda x: 1 - x.softmax(1)[:, :1],
}


@pytest.mark.parametrize("activation", [None, "sigmoid", "softmax"])
@pytest.mark.parametrize("last", PROBABILITIES)
def test_probabilities_are_not_activated_a_second_time(last, activation):
    with pytest.raises(BundleError, match=r"The file returns probabilities.* already, .*Pass activation='none'"):
        check(PROBABILITIES[last], activation=activation)
    check(PROBABILITIES[last], activation="none")


@pytest.mark.parametrize(
    ("answer", "activation", "message"),
    [
        (lambda x: x.tanh(), None, r"numbers of a tanh .*\(\(x \+ 1\) / 2\).*activation='none'"),
        (lambda x: 100 * x.sigmoid(), None, r"probabilities times 100 .*\(x / 100\)"),
        (lambda x: 100 * x.softmax(1), "softmax", r"percentages .*\(x / 100\)"),
        (lambda x: 255 * x[:, :1].sigmoid(), "sigmoid", r"probabilities times 255"),
        (lambda x: x.log_softmax(1), "sigmoid", r"logarithms of probabilities .*activation='softmax'"),
        (lambda x: x.argmax(1, keepdim=True), None, r"whole numbers \(0, 1; torch.int64\), which are class numbers"),
        (lambda x: x.argmax(1, keepdim=True), "none", r"whole numbers \(0, 1; torch.int64\)"),
        (lambda x: x[:, :1] > 0, "none", r"torch.bool"),
        (lambda x: x.argmax(1, keepdim=True).float(), None, r"whole numbers \(0, 1; torch.float32\)"),
        (lambda x: 2.0 * x.argmax(1, keepdim=True), "none", r"whole numbers \(0, 2; torch.float32\)"),
        (lambda x: (100 * x.sigmoid()).to(torch.uint8), None, r"torch.uint8"),
    ],
)
def test_other_numbers_than_scores_are_refused(answer, activation, message):
    with pytest.raises(BundleError, match=message):
        check(answer, activation=activation)


SCORES = {
    "logits": lambda x: x,
    "logits near one half": lambda x: 0.01 * x + 0.5,
    "one logit": lambda x: x[:, :1],
    "logarithms": lambda x: x.log_softmax(1),
    "relu": lambda x: x.relu(),
    "leaky": lambda x: torch.nn.functional.leaky_relu(x, 0.01),
    "normalised": lambda x: torch.nn.functional.instance_norm(x),
    "capped": lambda x: 30 * (x / 30).tanh(),
    "constant": lambda x: 0 * x + 0.5,
    "half": lambda x: x.half().float(),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("last", SCORES)
def test_scores_are_not_taken_for_probabilities(last, seed):
    check(SCORES[last], seed=seed)


@pytest.mark.parametrize("seed", range(20))
def test_a_tiny_network_with_random_weights_is_not_refused(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = torch.nn.Conv2d(3, 1, 1)
    check_output(network, inputs=INPUTS, side=32, activation=None, described="The file")


@pytest.mark.parametrize("architecture", ["Unet", "FPN", "DeepLabV3Plus", "Segformer"])
def test_untrained_networks_of_the_library_return_scores(architecture):
    network = build_network(architecture, {"encoder_name": "resnet18", "in_channels": 3, "classes": 1})
    check_output(network, inputs=INPUTS, side=64, activation=None, described="The file")


def test_a_program_exported_for_a_number_of_tiles_gets_that_number():
    program = torch.export.export(torch.nn.Conv2d(2, 1, 1), (torch.rand(3, 2, 64, 64),)).module()
    assert try_network(program, n_layers=2, classes=CLASSES, tile=64, stride=1).shape == (3, 1, 64, 64)
