import torch

from rtsx.training.loop import MovingAverage


def make_state(value: float) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((2, 3), value), "count": torch.tensor(int(value))}


def test_the_average_is_that_of_the_formula() -> None:
    average = MovingAverage(make_state(1.0), decay=0.3)
    expected = 1.0
    for n, value in enumerate([5.0, 2.0, 7.0, 3.0, 8.0]):
        average.update(make_state(value))
        kept = min(0.3, (1 + n) / (10 + n))
        expected = kept * expected + (1 - kept) * value
        torch.testing.assert_close(average.state["weight"], torch.full((2, 3), expected))
        assert average.state["count"] == int(value)


def test_it_owns_its_numbers() -> None:
    state = make_state(1.0)
    average = MovingAverage(state, decay=0.9)
    state["weight"].zero_()
    assert average.state["weight"].sum() == 6


def test_it_goes_on_from_what_was_kept() -> None:
    whole = MovingAverage(make_state(1.0), decay=0.9)
    for value in (4.0, 6.0):
        whole.update(make_state(value))
    resumed = MovingAverage(make_state(0.0), decay=0.9)
    resumed.restore(whole.state, n_updates=whole.n_updates)
    for average in (whole, resumed):
        average.update(make_state(9.0))
    assert torch.equal(whole.state["weight"], resumed.state["weight"])
