"""Optimisers by name, the learning rate of a step, and a moving average of weights."""

import inspect
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from rtsx.errors import TrainingError
from rtsx.names import suggest
from rtsx.training.recipe import OptimisationSpec

if TYPE_CHECKING:
    import torch

# Options of each schedule: those it cannot do without, and those it has a value for.
_REQUIRED = {"constant": (), "StepLR": ("step_size",), "ExponentialLR": ("gamma",), "cosine": ()}
_OPTIONAL = {"StepLR": {"gamma": 0.1}}


def learning_rate(spec: OptimisationSpec, *, step: int, steps: int, epoch: int) -> float:
    """Return the learning rate of one step.

    Parameters
    ----------
    spec
        A checked one.
    step
        Number of the step in the whole training, from 0.
    steps
        All steps of the training.
    epoch
        Number of the epoch that the step belongs to, from 0.

    Examples
    --------
    >>> spec = OptimisationSpec(learning_rate=1.0, schedule="cosine", warmup=0.25)
    >>> [round(learning_rate(spec, step=step, steps=8, epoch=0), 3) for step in range(8)]
    [0.5, 1.0, 1.0, 0.933, 0.75, 0.5, 0.25, 0.067]
    """
    rising = round(spec.warmup * steps)
    rise = min(1.0, (step + 1) / rising) if rising else 1.0
    options = _OPTIONAL.get(spec.schedule, {}) | dict(spec.schedule_options)
    match spec.schedule:
        case "StepLR":
            factor = options["gamma"] ** (epoch // int(options["step_size"]))
        case "ExponentialLR":
            factor = options["gamma"] ** epoch
        case "cosine":
            done = max(0, step - rising) / max(1, steps - rising)
            factor = (1 + math.cos(math.pi * done)) / 2
        case _:
            factor = 1.0
    return spec.learning_rate * rise * factor


def check_schedule(spec: OptimisationSpec) -> None:
    """Refuse a schedule that is none, and options that it does not have.

    Raises
    ------
    TrainingError
        The message says which, and what there is.
    """
    if spec.schedule not in _REQUIRED:
        raise TrainingError(f"There is no schedule {spec.schedule!r}.{suggest(spec.schedule, _REQUIRED)}")
    required, optional = _REQUIRED[spec.schedule], tuple(_OPTIONAL.get(spec.schedule, {}))
    unknown = sorted(set(spec.schedule_options) - {*required, *optional})
    missing = sorted(set(required) - set(spec.schedule_options))
    if unknown or missing:
        raise TrainingError(
            f"Schedule {spec.schedule!r} needs the options {list(required)} and may have {list(optional)}; got "
            f"{sorted(spec.schedule_options)}."
        )
    bad = {name: value for name, value in spec.schedule_options.items() if not value > 0}
    step_size = spec.schedule_options.get("step_size", 1)
    if bad or step_size != int(step_size):
        raise TrainingError(
            f"gamma is a factor above 0 and step_size a whole number of epochs above 0; got {dict(spec.schedule_options)}."
        )
    if not 0 <= spec.warmup < 1:
        raise TrainingError(f"warmup is a part of all steps, at least 0 and below 1; got {spec.warmup}.")


_OPTIMISERS = ("AdamW", "Adam", "SGD")
_PRECISIONS = ("float32", "bfloat16", "float16")


def build_optimiser(spec: OptimisationSpec, parameters: "Iterable[torch.nn.Parameter]") -> "torch.optim.Optimizer":
    """Make the optimiser of parameters; the spec is one that `check_optimisation` lets through.

    Raises
    ------
    TrainingError
        It has no such options, or refuses their values.
    """
    import torch  # here, because configs are checked without waiting for it

    kind = getattr(torch.optim, spec.optimiser)
    known = sorted(set(inspect.signature(kind).parameters) - {"params", "lr"})
    for name in spec.optimiser_options:
        if name not in known:
            raise TrainingError(
                f"{spec.optimiser} has no option {name!r}; the learning rate has a field of its own.{suggest(name, known)}"
            )
    try:
        made = kind(parameters, lr=spec.learning_rate, **spec.optimiser_options)
    except (ValueError, TypeError) as error:
        raise TrainingError(f"{spec.optimiser} cannot be made with {dict(spec.optimiser_options)}: {error}.") from error
    return cast("torch.optim.Optimizer", made)


def check_optimisation(spec: OptimisationSpec, *, loads_torch: bool = True) -> None:
    """Refuse what would fail, or do nothing, later.

    Parameters
    ----------
    spec
        The spec.
    loads_torch
        Whether the optimiser is also made, which tells if it takes its options.

    Raises
    ------
    TrainingError
        The message says which field, what it may be, and what it is.
    """
    if not spec.learning_rate > 0:
        raise TrainingError(f"learning_rate has to be above 0; got {spec.learning_rate}.")
    if spec.gradient_clip is not None and not spec.gradient_clip > 0:
        raise TrainingError(
            f"gradient_clip is the greatest norm of the gradient, above 0; got {spec.gradient_clip}. Leave it out for none."
        )
    if spec.ema is not None and not 0 < spec.ema < 1:
        raise TrainingError(
            f"ema is a decay above 0 and below 1, such as 0.999; got {spec.ema}. Leave it out for none."
        )
    if spec.precision not in _PRECISIONS:
        raise TrainingError(f"precision has to be one of {', '.join(_PRECISIONS)}; got {spec.precision!r}.")
    if spec.optimiser not in _OPTIMISERS:
        raise TrainingError(f"There is no optimiser {spec.optimiser!r} here.{suggest(spec.optimiser, _OPTIMISERS)}")
    check_schedule(spec)
    if loads_torch:
        import torch

        build_optimiser(spec, [torch.nn.Parameter(torch.zeros(1))])
