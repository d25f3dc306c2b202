import pytest
import torch

from rtsx.errors import BundleError
from rtsx.model.network import Network, ProbabilityNetwork, StubNetwork, open_network, resolve_device, resolve_dtype


class ModuleSource:
    """A source of exactly one module, as a bundle made from a module has it."""

    framework = "torch"

    def __init__(self, module):
        self._module = module

    def load_module(self):
        return self._module


def opened(
    module, *, n_layers=3, classes=("slump",), activation="sigmoid", temperature=1.0, precision="auto", device="cpu"
) -> Network:
    return open_network(
        ModuleSource(module),
        digest="0" * 64,
        n_layers=n_layers,
        classes=classes,
        activation=activation,
        temperature=temperature,
        stride=1,
        tile=16,
        device=device,
        precision=precision,
        backend="eager",
    )


def convolution(n_classes=1, n_layers=3):
    torch.manual_seed(0)
    return torch.nn.Conv2d(n_layers, n_classes, 3, padding=1)


def batch(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def test_the_sigmoid_is_applied_exactly_once():
    module, tiles = convolution(), batch(2, 3, 16, 16)
    answer = opened(module)(tiles)
    torch.testing.assert_close(answer, module(tiles).detach().sigmoid())
    assert answer.dtype == torch.float32
    assert answer.is_contiguous()
    assert not answer.requires_grad


def test_softmax_runs_over_the_classes():
    module, tiles = convolution(3), batch(2, 3, 16, 16)
    answer = opened(module, classes=("clear", "cloud", "shadow"), activation="softmax")(tiles)
    torch.testing.assert_close(answer, module(tiles).detach().softmax(1))


def test_none_takes_the_networks_own_probabilities():
    module = torch.nn.Sequential(convolution(), torch.nn.Sigmoid())
    tiles = batch(1, 3, 16, 16)
    torch.testing.assert_close(opened(module, activation="none")(tiles), module(tiles).detach())


def test_the_answer_can_be_changed_in_place():
    answer = opened(convolution())(batch(1, 3, 16, 16))
    answer.mul_(0)
    assert answer.max() == 0


def test_logits_without_an_activation_are_refused():
    module = convolution()
    torch.nn.init.constant_(module.bias, 7.0)
    with pytest.raises(BundleError, match=r"has to return probabilities in 0..1; it returned .* Pass activation="):
        opened(module, activation="none")(batch(1, 3, 16, 16))


def test_softmax_over_one_class_is_refused():
    with pytest.raises(BundleError, match="softmax over the single class 'slump' is 1 everywhere"):
        opened(convolution(), activation="softmax")


def test_a_wrong_activation_is_refused():
    with pytest.raises(BundleError, match=r"activation has to be .* got 'relu'"):
        opened(convolution(), activation="relu")


def test_a_wrong_number_of_classes_is_refused():
    with pytest.raises(
        BundleError, match=r"For 1 classes \['slump'\] .* \(1, 1, 16, 16\); it returned \(1, 2, 16, 16\)"
    ):
        opened(convolution(2))(batch(1, 3, 16, 16))


def test_an_answer_at_another_resolution_is_refused():
    module = torch.nn.Sequential(convolution(), torch.nn.AvgPool2d(2))
    with pytest.raises(BundleError, match="answer at the resolution of its input"):
        opened(module)(batch(1, 3, 16, 16))


def test_nan_from_finite_input_is_refused():
    module = convolution()
    torch.nn.init.constant_(module.bias, float("nan"))
    with pytest.raises(BundleError, match="returned NaN or infinity for finite input"):
        opened(module)(batch(1, 3, 16, 16))


def test_a_wrong_number_of_layers_is_refused():
    with pytest.raises(BundleError, match=r"takes batches \(tile, 3 layers, y, x\); got \(1, 4, 16, 16\)"):
        opened(convolution())(batch(1, 4, 16, 16))


def test_weights_for_other_layers_are_named_with_the_cause():
    with pytest.raises(BundleError, match=r"failed on a batch of shape .* Check its number of layers") as caught:
        opened(convolution(n_layers=5))(batch(1, 3, 16, 16))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_network_that_returns_a_dictionary_is_refused():
    class Wrapped(torch.nn.Module):
        def forward(self, tiles):
            return {"out": tiles}

    with pytest.raises(BundleError, match=r"it returned a dict with keys \['out'\]. Wrap it"):
        opened(Wrapped())(batch(1, 3, 16, 16))


def test_each_tile_size_is_checked_anew():
    class OnlySixteen(torch.nn.Module):
        def forward(self, tiles):
            return tiles[:, :1, :16, :16]

    network = opened(OnlySixteen())
    network(batch(1, 3, 16, 16))
    with pytest.raises(BundleError, match="it returned"):
        network(batch(1, 3, 32, 32))


def test_bfloat16_is_close_but_not_equal():
    module, tiles = convolution(), batch(1, 3, 16, 16)
    exact, rounded = opened(module)(tiles), opened(module, precision="bfloat16")(tiles)
    assert rounded.dtype == torch.float32
    difference = (exact - rounded).abs().max()
    assert 0 < difference < 0.02


def test_names_of_devices_and_precisions():
    assert resolve_device("auto").type in {"cpu", "cuda"}
    assert resolve_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert resolve_dtype("float16", torch.device("cpu")) == torch.float16
    with pytest.raises(BundleError, match="precision has to be 'auto' or one of"):
        resolve_dtype("float64", torch.device("cpu"))
    with pytest.raises(BundleError, match="device has to be 'auto', 'cpu', 'cuda' or 'cuda:N'; got 'gpu'"):
        resolve_device("gpu")


def test_a_gpu_that_is_not_there_is_refused():
    beyond = torch.cuda.device_count()
    with pytest.raises(BundleError, match=rf"device='cuda:{beyond}' was asked for, but torch sees {beyond} GPUs"):
        resolve_device(f"cuda:{beyond}")


def test_the_stub_counts_calls_and_tiles():
    stub = StubNetwork(lambda tiles: tiles[:, :1].double())
    stub(batch(3, 2, 8, 8))
    answer = stub(batch(1, 2, 8, 8))
    assert (stub.n_calls, stub.n_tiles, stub.device, answer.dtype) == (2, 4, torch.device("cpu"), torch.float32)


def test_the_network_is_a_probability_network_of_its_backend():
    network = opened(convolution())
    assert isinstance(network, ProbabilityNetwork)
    assert network.backend == "eager"


def test_temperature_divides_the_output_before_the_activation():
    module = convolution()
    batch = torch.randn(2, 3, 16, 16)
    plain, tempered = (opened(module, temperature=t)(batch) for t in (1.0, 2.5))
    torch.testing.assert_close(torch.logit(tempered), torch.logit(plain) / 2.5, atol=1e-4, rtol=1e-4)
