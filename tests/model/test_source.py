""""""

import copy
from functools import partial

import numpy as np
import pytest
import torch

from rtsx.errors import BundleError
from rtsx.model.exported import ModuleSource, TorchScriptSource
from rtsx.model.onnx import OnnxSource
from rtsx.model.source import BatchStatisticsSource, digest_of_tensors, fingerprint, use_batch_statistics


def test_refusals_say_what_else_to_do():
    with pytest.raises(
        BundleError, match=r"Conv2d is a torch network and has no ONNX file. Run it with backend='eager'"
    ):
        ModuleSource.from_module(torch.nn.Conv2d(2, 1, 1)).onnx_path()
    with pytest.raises(BundleError, match="backend='onnx' or 'openvino'"):
        OnnxSource(b"").load_module()


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.5), torch.nn.Conv2d(4, 1, 1)
    ).eval()


def tile():
    return torch.rand(1, 2, 16, 16, generator=torch.Generator().manual_seed(1))


def test_it_equals_normalisation_in_training_mode_without_learning():
    reference = network()
    reference[1].train()
    changed = copy.deepcopy(network())
    assert use_batch_statistics(changed) == 1
    with torch.no_grad():
        expected = reference(tile())
        assert torch.equal(changed(tile()), expected)
        assert torch.equal(changed(tile()), expected)
        assert not torch.equal(network()(tile()), expected)


def test_the_source_loads_changed_modules_and_keeps_its_own():
    source = ModuleSource.from_module(network())
    with torch.no_grad():
        batch = BatchStatisticsSource(source).load_module()(tile())
        assert torch.equal(source.load_module()(tile()), network()(tile()))
        assert not torch.equal(batch, network()(tile()))
    assert BatchStatisticsSource(source).artifact(n_layers=2, tile=32, stride=1).kind == "export"


def test_a_network_without_batch_normalisation_is_refused():
    source = BatchStatisticsSource(ModuleSource.from_module(torch.nn.Conv2d(2, 1, 1)))
    with pytest.raises(BundleError, match=r"Conv2d has no batch normalisation. Use bn_mode='eval'"):
        source.load_module()


def test_a_fixed_graph_is_refused():
    source = TorchScriptSource(b"")
    object.__setattr__(source, "architecture", "Net")
    with pytest.raises(BundleError, match=r"Net comes as torchscript, where normalisation is part of the graph"):
        BatchStatisticsSource(source)


def scaled(by):
    return lambda x: x * by


def recursive():
    def countdown(n):
        return countdown(n - 1) if n else 0

    return countdown


def test_tensors_digest_ignores_order_and_layout_but_no_value():
    a = torch.arange(12.0).reshape(3, 4)
    straight = digest_of_tensors({"a": a, "b": torch.ones(2)}, header="net")
    turned = digest_of_tensors({"b": torch.ones(2), "a": a.t().contiguous().t()}, header="net")
    assert straight == turned
    other = a.clone()
    other[2, 3] += 1e-5
    assert digest_of_tensors({"a": other, "b": torch.ones(2)}, header="net") != straight
    assert digest_of_tensors({"a": a, "b": torch.ones(2)}, header="nets") != straight
    assert digest_of_tensors({"a": a.reshape(4, 3), "b": torch.ones(2)}, header="net") != straight


def test_tensors_digest_takes_scalars_and_counters():
    one = digest_of_tensors({"n": torch.tensor(1)}, header="")
    assert one != digest_of_tensors({"n": torch.tensor(2)}, header="")
    assert one != digest_of_tensors({"n": torch.tensor(1.0)}, header="")


def test_functions_differ_by_what_they_close_over():
    assert fingerprint(scaled(2)) == fingerprint(scaled(2))
    assert fingerprint(scaled(2)) != fingerprint(scaled(3))
    assert fingerprint(partial(max, 1)) != fingerprint(partial(max, 2))
    assert fingerprint(scaled(np.zeros(3))) != fingerprint(scaled(np.ones(3)))
    assert fingerprint(scaled(torch.zeros(3))) != fingerprint(scaled(torch.ones(3)))


def test_functions_differ_by_code_and_defaults():
    assert fingerprint(lambda x: x + 1) != fingerprint(lambda x: x - 1)
    assert fingerprint(lambda x, y=1: x + y) != fingerprint(lambda x, y=2: x + y)


def test_a_function_that_closes_over_itself_ends():
    assert fingerprint(recursive()) == fingerprint(recursive())


def test_no_address_of_memory_is_in_a_fingerprint():
    class Thing:
        def __init__(self, size):
            self.size = size

    assert fingerprint(Thing(1)) == fingerprint(Thing(1))
    assert fingerprint(Thing(1)) != fingerprint(Thing(2))
    assert fingerprint({3, 1, 2}) == fingerprint({1, 2, 3})
