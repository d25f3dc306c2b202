"""Optimisers of torch by name, and what of an `OptimisationSpec` can be refused before anything is read."""

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from rtsx.errors import TrainingError
from rtsx.training.nearest import nearest
from rtsx.training.optimisation import OptimisationSpec
from rtsx.training.schedule import check_schedule

if TYPE_CHECKING:
    import torch

__all__ = ["build_optimiser", "check_optimisation"]

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
                f"{spec.optimiser} has no option {name!r}; the learning rate has a field of its own.{nearest(name, known)}"
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
        raise TrainingError(f"There is no optimiser {spec.optimiser!r} here.{nearest(spec.optimiser, _OPTIMISERS)}")
    check_schedule(spec)
    if loads_torch:
        import torch

        build_optimiser(spec, [torch.nn.Parameter(torch.zeros(1))])
