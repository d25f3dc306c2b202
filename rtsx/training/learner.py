"""A network that learns, step by step: the kernel of a training."""

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from rtsx.training.augment import augment, drop_channels
from rtsx.training.average import MovingAverage
from rtsx.training.batch import Batch
from rtsx.training.checkpoint import Best, Checkpoint
from rtsx.training.judging import probability_of
from rtsx.training.log import LogRow
from rtsx.training.losses import build_loss
from rtsx.training.networks import new_network, output_classes
from rtsx.training.optimiser import build_optimiser
from rtsx.training.plan import TrainingPlan
from rtsx.training.seeds import seed_of

if TYPE_CHECKING:
    from rtsx.training.lightning import Engine

__all__ = ["Learner", "on_cpu"]


class Learner:
    """Network, averages and optimiser of one process.

    Every random number of a step follows from the recipe's seed and the place of the step, so nothing of it is remembered. The
    caller keeps torch's global generator: a step seeds it.
    """

    def __init__(self, plan: TrainingPlan, engine: "Engine") -> None:
        self._plan = plan
        self._engine = engine
        recipe = plan.recipe
        self.channels = len(output_classes(recipe.classes))
        network = new_network(recipe.network, layers=len(plan.inputs), classes=self.channels, seed=recipe.seed)
        # 1.3 times as fast on a CPU, and more on a GPU.
        self.network = network.to(engine.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]  # torch's own stub lacks it
        self._judged = copy.deepcopy(self.network).eval()
        self._optimiser = build_optimiser(recipe.optimisation, self.network.parameters())
        self._forward, self._stepper = engine.take(self.network, self._optimiser)
        self._loss = build_loss(recipe.losses, classes=self.channels)
        decay = recipe.optimisation.ema
        self._average = None if decay is None else MovingAverage(self.network.state_dict(), decay=decay)

    def loss(self, batch: Batch, *, epoch: int, place: int) -> tuple[torch.Tensor, Batch]:
        """Loss of a batch, with its graph, and the batch as augmentation has left it.

        Parameters
        ----------
        batch
            Tiles as read.
        epoch, place
            The epoch, and the place of the step in it, both from 0.
        """
        recipe = self._plan.recipe
        key = (recipe.seed, epoch, place, self._engine.rank)
        torch.manual_seed(seed_of("step", *key))  # what is left to torch: dropout
        shown = augment(batch.to(self._engine.device), recipe.augmentations, key=key)
        channels = shown.channels(self._plan.inputs, fill=recipe.fill)
        channels = drop_channels(channels, recipe.augmentations, fill=recipe.fill, key=key)
        logits = self._forward(channels.contiguous(memory_format=torch.channels_last))
        return self._loss(logits.float(), shown.target()), shown

    def learn(self, loss: torch.Tensor, *, learning_rate: float) -> None:
        """Change the weights by a loss's gradients."""
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate
        clip = self._plan.recipe.optimisation.gradient_clip
        self._engine.learn(loss, forward=self._forward, stepper=self._stepper, clip=clip)
        if self._average is not None:
            self._average.update(self.network.state_dict())

    def answer(self, channels: torch.Tensor) -> torch.Tensor:
        """Probabilities by the weights that `judge_from` took."""
        with torch.no_grad(), torch.autocast(channels.device.type, enabled=False):
            return probability_of(self._judged(channels.contiguous(memory_format=torch.channels_last)))

    def judge_from(self) -> Mapping[str, torch.Tensor]:
        """Take the weights that are judged, in every process those of the first: the averages where there are some."""
        state = self.network.state_dict() if self._average is None else self._average.state
        shared = self._engine.agree(state)
        self._judged.load_state_dict(dict(shared))
        return shared

    def checkpoint(self, *, epoch: int, is_done: bool, best: Best, log: Sequence[LogRow]) -> Checkpoint:
        """All that goes on from here, after so many epochs."""
        average = self._average
        return Checkpoint(
            recipe=self._plan.digest,
            epoch=epoch,
            step=self._plan.first_step[epoch],
            is_done=is_done,
            network=on_cpu(self.network.state_dict()),
            average=None if average is None else on_cpu(average.state),
            n_averaged=0 if average is None else average.n_updates,
            optimiser=self._optimiser.state_dict(),
            scaler=self._engine.scaler_state(),
            best=best,
            log=tuple(log),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint."""
        self.network.load_state_dict(dict(checkpoint.network))
        self._optimiser.load_state_dict(dict(checkpoint.optimiser))
        self._engine.load_scaler_state(checkpoint.scaler)
        if checkpoint.average is not None and self._average is not None:
            self._average.restore(checkpoint.average, n_updates=checkpoint.n_averaged)


def on_cpu(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A copy of a state in memory of its own, in the usual order of numbers."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
