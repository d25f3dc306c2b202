import cloudpickle
import pytest
import torch

from rtsx.errors import BundleError
from rtsx.model.exported import ModuleSource


def scaling_module(factor, *, cut=0.5):
    class Scaling(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cut = cut

        def forward(self, x):
            return x[:, :1] * factor - self.cut

    return Scaling()


def test_code_settings_and_closures_are_in_the_digest():
    digest = ModuleSource.from_module(scaling_module(2)).digest
    assert ModuleSource.from_module(scaling_module(2)).digest == digest
    assert ModuleSource.from_module(scaling_module(3)).digest != digest
    assert ModuleSource.from_module(scaling_module(2, cut=0.4)).digest != digest


def test_tensors_outside_of_the_state_dict_are_in_the_digest():
    first, second = torch.nn.Identity(), torch.nn.Identity()
    first.mean, second.mean = torch.zeros(3), torch.ones(3)
    assert ModuleSource.from_module(first).digest != ModuleSource.from_module(second).digest


def test_training_on_changes_nothing():
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.Dropout(0.5)).double().train()
    source = ModuleSource.from_module(module)
    tile = torch.ones(1, 1, 4, 4)
    before = source.load_module()(tile)
    with torch.no_grad():
        module[0].weight.zero_()
    loaded = source.load_module()
    assert torch.equal(loaded(tile), before)
    assert not any(part.training for part in loaded.modules())
    assert module.training
    assert {part.dtype for part in loaded.parameters()} == {torch.float32}


def test_loaded_modules_belong_to_the_caller():
    source = ModuleSource.from_module(torch.nn.Conv2d(1, 1, 1))
    source.load_module().weight.data.zero_()
    assert source.load_module().weight.abs().sum() > 0


def test_a_class_of_a_notebook_can_be_sent_to_a_worker():
    source = ModuleSource.from_module(scaling_module(2))
    sent = cloudpickle.loads(cloudpickle.dumps(source))
    assert sent.digest == source.digest
    assert torch.equal(sent.load_module()(torch.ones(1, 1, 2, 2)), torch.full((1, 1, 2, 2), 1.5))
    assert ModuleSource.from_module(sent.load_module()).digest == source.digest


def test_it_has_no_onnx_file():
    with pytest.raises(BundleError, match=r"Conv2d is a torch network and has no ONNX file"):
        ModuleSource.from_module(torch.nn.Conv2d(1, 1, 1)).onnx_path()
