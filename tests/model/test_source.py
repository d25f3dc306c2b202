""""""

import copy

import pytest
import torch

from rtsx.errors import BundleError
from rtsx.model.exported import ModuleSource, TorchScriptSource
from rtsx.model.onnx import OnnxSource
from rtsx.model.source import BatchStatisticsSource, use_batch_statistics


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
