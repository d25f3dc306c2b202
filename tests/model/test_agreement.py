"""A backend that was asked for by name has to answer like the reference."""

import pytest
import torch

from rtsx.errors import BundleError
from rtsx.model import ModelBundle, StubNetwork
from rtsx.model.backend_choice import require_backends_equal

OPTIONS = {"device": "cpu", "precision": "auto", "tile": 64, "batch_size": 2}


def make_bundle(bias: float) -> ModelBundle:
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    torch.nn.init.constant_(network.bias, bias)
    return ModelBundle.from_module(network, layers=("red",), tile=32, overlap=8, stride=1, id="tiny")


def answering(monkeypatch: pytest.MonkeyPatch, **off: float) -> dict[str, StubNetwork]:
    """Make every bundle's networks stubs that are off by so much, by backend; returns them."""
    networks = {
        name: StubNetwork(lambda batch, by=by: batch[:, :1] * 0 + 0.5 + by)
        for name, by in ({"eager": 0.0} | off).items()
    }
    monkeypatch.setattr(ModelBundle, "network", lambda self, *, device, precision, backend: networks[backend])
    return networks


def test_a_wrong_backend_is_refused_with_how_wrong_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, openvino=0.25)
    message = r"backend='openvino' answers up to 0.25 away from 'eager' for bundle 'tiny'; at most 0.0001 is allowed"
    with pytest.raises(BundleError, match=message):
        require_backends_equal(make_bundle(0.4), backend="openvino", **OPTIONS)


def test_nan_agrees_with_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, onnx=float("nan"))
    with pytest.raises(BundleError, match="answers up to inf away"):
        require_backends_equal(make_bundle(0.4), backend="onnx", **OPTIONS)


def test_a_right_one_is_tried_once_per_network(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = answering(monkeypatch, openvino=5e-5)
    for _ in range(3):
        require_backends_equal(make_bundle(0.5), backend="openvino", **OPTIONS)
    assert networks["openvino"].n_calls == networks["eager"].n_calls == 1
    require_backends_equal(make_bundle(0.6), backend="openvino", **OPTIONS)
    assert networks["openvino"].n_calls == 2


def test_the_reference_auto_and_half_precision_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelBundle, "network", None)
    for options in ({"backend": "eager"}, {"backend": "auto"}, {"backend": "compile", "precision": "bfloat16"}):
        require_backends_equal(make_bundle(0.7), **(OPTIONS | options))
