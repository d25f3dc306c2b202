import pytest
import torch

from rtsx.errors import TrainingError
from rtsx.training import OptimisationSpec
from rtsx.training.optimiser import build_optimiser, check_optimisation


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
