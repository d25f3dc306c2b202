"""What is found out about a bundle once: the fastest backend that is right, and the reach."""

from pathlib import Path

import pytest
import torch

from rtsx.errors import BundleError, MissingExtraError
from rtsx.model import ModelBundle, StubNetwork
from rtsx.model.backend_choice import choose_backend, fastest_backend, load_cached, receptive_field_of, save_cached
from rtsx.model.metadata import Reach
from rtsx.model.network import Network


class Timed(StubNetwork):
    """A network that takes the time it is told to, on a clock of the test's own."""

    clock = 0.0

    def __init__(self, seconds: float, *, off_by: float = 0.0) -> None:
        super().__init__(lambda batch: batch + off_by)
        self.seconds = seconds

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        Timed.clock += self.seconds
        return super().__call__(batch)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTSX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("rtsx.model.backend_choice.time.perf_counter", lambda: Timed.clock)


def choose(networks: dict[str, Network | Exception]) -> tuple[str, dict[str, float]]:
    def opened(name: str) -> Network:
        found = networks[name]
        if isinstance(found, Exception):
            raise found
        return found

    return fastest_backend(opened, list(networks), batch=torch.zeros(1, 1, 4, 4))


def test_the_fastest_that_agrees_is_taken() -> None:
    backend, seconds = choose({"eager": Timed(3), "onnx": Timed(2), "openvino": Timed(1)})
    assert backend == "openvino"
    assert seconds == pytest.approx({"eager": 3, "onnx": 2, "openvino": 1})


def test_one_that_disagrees_is_dropped_however_fast() -> None:
    assert choose({"eager": Timed(3), "onnx": Timed(2), "openvino": Timed(1, off_by=2e-4)})[0] == "onnx"
    assert choose({"eager": Timed(3), "openvino": Timed(1, off_by=0.5e-4)})[0] == "openvino"


def test_one_that_cannot_run_is_passed_over() -> None:
    assert choose({"eager": Timed(3), "onnx": MissingExtraError("gone"), "openvino": BundleError("no")})[0] == "eager"


def test_a_reference_that_fails_is_an_error() -> None:
    with pytest.raises(BundleError, match="no layers"):
        choose({"eager": BundleError("no layers"), "onnx": Timed(1)})


def make_bundle(bias: float) -> ModelBundle:
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    torch.nn.init.constant_(network.bias, bias)
    return ModelBundle.from_module(network, layers=("red",), tile=32, overlap=8, stride=1)


def test_a_short_job_is_left_to_the_reference() -> None:
    assert choose_backend(make_bundle(0.1), tile=32, passes=100_000) == "eager"  # the test's clock stands still


def test_a_choice_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino", reason="needs the openvino extra")
    bundle = make_bundle(0.2)
    monkeypatch.setattr("rtsx.model.backend_choice._WORTHWHILE_S", -1.0)
    monkeypatch.setattr("rtsx.model.backend_choice.fastest_backend", lambda *a, **k: ("openvino", {"openvino": 1.0}))
    assert choose_backend(bundle, tile=32, passes=10_000) == "openvino"
    monkeypatch.setattr("rtsx.model.backend_choice._BACKENDS", {})
    monkeypatch.setattr("rtsx.model.backend_choice.fastest_backend", None)  # asking again would fail
    assert choose_backend(bundle, tile=32, passes=10_000) == "openvino"


def test_a_stored_reach_is_believed_and_a_measured_one_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle(0.3)
    stored = Reach(stride=1, radius=77, depends_on_tile=False)
    assert receptive_field_of(bundle.with_reach(stored)) == stored
    measured = receptive_field_of(bundle)
    assert measured.radius == 1
    monkeypatch.setattr("rtsx.model.backend_choice._REACHES", {})
    monkeypatch.setattr("rtsx.model.backend_choice.measure_receptive_field", None)
    assert receptive_field_of(bundle) == measured


def test_measurements_come_back_only_under_their_own_conditions() -> None:
    save_cached("speed", {"tile": 256}, found={"backend": "eager"})
    assert load_cached("speed", {"tile": 256}) == {"backend": "eager"}
    assert load_cached("speed", {"tile": 512}) is None
    assert load_cached("reach", {"tile": 256}) is None


def test_of_two_who_measure_at_once_both_go_by_the_first() -> None:
    assert save_cached("speed", {"tile": 256}, found={"backend": "eager"}) == {"backend": "eager"}
    assert save_cached("speed", {"tile": 256}, found={"backend": "onnx"}) == {"backend": "eager"}
    assert load_cached("speed", {"tile": 256}) == {"backend": "eager"}


def test_a_damaged_measurement_is_replaced(tmp_path: Path) -> None:
    save_cached("speed", {"tile": 256}, found={"backend": "eager"})
    (file,) = (tmp_path / "cache").iterdir()
    file.write_text("{")
    assert save_cached("speed", {"tile": 256}, found={"backend": "onnx"}) == {"backend": "onnx"}
    assert load_cached("speed", {"tile": 256}) == {"backend": "onnx"}
    assert list((tmp_path / "cache").iterdir()) == [file]


def test_a_damaged_or_unwritable_cache_costs_time_not_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_cached("speed", {"tile": 256}, found={"backend": "eager"})
    for file in (tmp_path / "cache").iterdir():
        file.write_text("{")
    assert load_cached("speed", {"tile": 256}) is None
    occupied = tmp_path / "a-file"
    occupied.write_text("")
    monkeypatch.setenv("RTSX_CACHE_DIR", str(occupied))
    save_cached("speed", {"tile": 256}, found={"backend": "eager"})
    assert load_cached("speed", {"tile": 256}) is None
