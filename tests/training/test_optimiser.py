""""""

import pytest
import torch

from rtsx.errors import TrainingError
from rtsx.training import OptimisationSpec
from rtsx.training.optimiser import build_optimiser, check_optimisation, check_schedule, learning_rate


@pytest.mark.parametrize("name", ["AdamW", "Adam", "SGD"])
def test_an_optimiser_has_the_options_that_were_asked_for(name) -> None:
    spec = OptimisationSpec(optimiser=name, learning_rate=0.2, optimiser_options={"weight_decay": 0.07})
    made = build_optimiser(spec, [torch.nn.Parameter(torch.zeros(1))])
    assert type(made) is getattr(torch.optim, name)
    assert (made.param_groups[0]["lr"], made.param_groups[0]["weight_decay"]) == (0.2, 0.07)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"optimiser": "adamw2"}, "There is no optimiser 'adamw2' here. Did you mean 'AdamW'"),
        ({"optimiser_options": {"weight_decy": 1.0}}, "AdamW has no option 'weight_decy'.*Did you mean 'weight_decay'"),
        ({"optimiser_options": {"lr": 1.0}}, "the learning rate has a field of its own"),
        ({"optimiser_options": {"weight_decay": -1.0}}, "AdamW cannot be made with .*Invalid weight_decay"),
        ({"learning_rate": 0.0}, "learning_rate has to be above 0; got 0.0"),
        ({"gradient_clip": 0.0}, "gradient_clip is the greatest norm of the gradient, above 0; got 0.0"),
        ({"ema": 1.0}, "ema is a decay above 0 and below 1"),
        ({"precision": "half"}, "precision has to be one of float32, bfloat16, float16; got 'half'"),
        ({"warmup": -0.1}, "warmup is a part of all steps"),
    ],
)
def test_what_would_fail_later_is_refused(changes, text: str) -> None:
    with pytest.raises(TrainingError, match=text):
        check_optimisation(OptimisationSpec(**changes))


@pytest.mark.parametrize(
    ("name", "options", "reference"),
    [
        ("constant", {}, lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda _: 1.0)),
        ("StepLR", {"step_size": 3, "gamma": 0.5}, lambda o: torch.optim.lr_scheduler.StepLR(o, 3, 0.5)),
        ("StepLR", {"step_size": 2}, lambda o: torch.optim.lr_scheduler.StepLR(o, 2)),
        ("ExponentialLR", {"gamma": 0.9}, lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9)),
    ],
)
def test_schedules_by_epoch_are_those_of_torch(name, options, reference) -> None:
    spec = OptimisationSpec(learning_rate=0.3, schedule=name, schedule_options=options)
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = reference(optimiser)
    for epoch in range(8):
        for step in range(2):
            found = learning_rate(spec, step=2 * epoch + step, steps=16, epoch=epoch)
            assert found == pytest.approx(scheduler.get_last_lr()[0])
        optimiser.step()
        scheduler.step()


def test_the_cosine_is_that_of_torch_by_steps() -> None:
    spec = OptimisationSpec(learning_rate=0.3, schedule="cosine")
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=20)
    for step in range(20):
        assert learning_rate(spec, step=step, steps=20, epoch=0) == pytest.approx(scheduler.get_last_lr()[0])
        optimiser.step()
        scheduler.step()


@pytest.mark.parametrize("name", ["constant", "cosine"])
def test_a_warm_up_rises_evenly_to_the_highest_rate(name: str) -> None:
    spec = OptimisationSpec(learning_rate=1.0, schedule=name, warmup=0.4)
    rates = [learning_rate(spec, step=step, steps=10, epoch=0) for step in range(10)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert max(rates) == 1.0
    assert rates[9] == pytest.approx(1.0 if name == "constant" else 0.0670, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"schedule": "steplr"}, "Did you mean 'StepLR'"),
        ({"schedule": "StepLR"}, r"needs the options \['step_size'\] and may have \['gamma'\]; got \[\]"),
        (
            {"schedule": "ExponentialLR", "schedule_options": {"gamma": 0.9, "step_size": 2}},
            r"needs the options \['gamma'\]",
        ),
        ({"schedule": "StepLR", "schedule_options": {"step_size": 1.5}}, "whole number of epochs"),
        ({"schedule": "ExponentialLR", "schedule_options": {"gamma": 0}}, "gamma is a factor above 0"),
        ({"schedule": "cosine", "schedule_options": {"gamma": 0.1}}, "Schedule 'cosine' needs"),
        ({"warmup": 1.0}, "warmup is a part of all steps, at least 0 and below 1; got 1.0"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(changes, text: str) -> None:
    with pytest.raises(TrainingError, match=text):
        check_schedule(OptimisationSpec(**changes))
