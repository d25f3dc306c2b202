"""The learning rate of a step: a pure function, so that a resumed training needs no memory of it."""

import math

from rtsx.errors import TrainingError
from rtsx.training.nearest import nearest
from rtsx.training.optimisation import OptimisationSpec

__all__ = ["check_schedule", "learning_rate"]

# Options of each schedule: those it cannot do without, and those it has a value for.
_REQUIRED = {"constant": (), "StepLR": ("step_size",), "ExponentialLR": ("gamma",), "cosine": ()}
_OPTIONAL = {"StepLR": {"gamma": 0.1}}


def learning_rate(spec: OptimisationSpec, *, step: int, steps: int, epoch: int) -> float:
    """Learning rate of one step.

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
        raise TrainingError(f"There is no schedule {spec.schedule!r}.{nearest(spec.schedule, _REQUIRED)}")
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
