"""The epochs of a training, and its state between two of them: all that the rest of it depends on."""

import copy
import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import psutil
import torch

from rtsx.errors import TrainingError
from rtsx.storage import staged
from rtsx.training.augment import augment, drop_channels
from rtsx.training.dataset import ReadAhead, TileBatch, TileReader
from rtsx.training.losses import build_loss
from rtsx.training.metrics import EpochMetrics, chunked, evaluate_epoch, probability_of
from rtsx.training.networks import new_network, output_classes
from rtsx.training.optimiser import build_optimiser, learning_rate
from rtsx.training.run_log import LogRow, Progress, ShowProgress, write_log
from rtsx.training.sampler import TileAddress, TrainingPlan, seed_of

if TYPE_CHECKING:
    from lightning.fabric import Fabric

StateDict = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class BestWeights:
    """The weights that validation likes best so far."""

    epoch: int
    """The epoch that they are of, from 1."""
    iou: float | None
    """What it scored; None without validation, where the last epoch is the best."""
    state: StateDict
    """The weights that were evaluated: the averages where there are some."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingCheckpoint:
    """A training after an epoch. Nothing random is in it: seeds follow from recipe, epoch and step."""

    recipe: str
    """Digest of the recipe, so that no other training goes on from here."""
    epoch: int
    step: int
    is_done: bool
    """Whether no epoch is left, or patience has run out."""
    network: StateDict
    """Weights and running statistics."""
    average: StateDict | None
    """Moving averages of them, where there are some."""
    n_averaged: int
    """Updates of the averages."""
    optimiser: Mapping[str, Any]
    """State of the optimiser, as torch gives it."""
    scaler: Mapping[str, Any]
    """State of the gradient scaler of float16; empty otherwise."""
    best: BestWeights
    """What will be kept, unless a later epoch is better."""
    log: tuple[LogRow, ...]
    """A row for every epoch done."""

    def save(self, path: Path) -> None:
        """Write it, replacing the one before at once."""
        content = {**vars(self), "best": vars(self.best), "log": [asdict(row) for row in self.log]}
        with staged(path, overwrite=True) as draft:
            torch.save(content, draft)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read what `save` wrote, tensors on the CPU.

        Raises
        ------
        TrainingError
            It is damaged, or another release's.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            log = tuple(LogRow(**row) for row in content.pop("log"))
            return cls(best=BestWeights(**content.pop("best")), log=log, **content)
        except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
            raise TrainingError(
                f"The checkpoint {path} cannot be read ({type(error).__name__}). It is damaged, or was written by another "
                "release: delete it to train from the beginning."
            ) from error


class MovingAverage:
    """Exponential moving average of all floating numbers of a network, running statistics included; counters are copied.

    The decay starts low and rises to its value, ``min(decay, (1 + n) / (10 + n))`` after n updates, because at a decay
    of 0.999 a training of some hundred steps would otherwise end near the random weights that it began with.

    Examples
    --------
    >>> layer = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.ones_(layer.weight)
    >>> average = MovingAverage(layer.state_dict(), decay=0.5)
    >>> _ = torch.nn.init.zeros_(layer.weight)
    >>> average.update(layer.state_dict())
    >>> round(average.state["weight"].item(), 2), average.n_updates
    (0.1, 1)
    """

    def __init__(self, state: Mapping[str, torch.Tensor], *, decay: float) -> None:
        self.state = {name: tensor.detach().clone() for name, tensor in state.items()}
        """The averages, by the names of the network's state."""
        self.n_updates = 0
        """Updates so far."""
        self._decay = decay

    @torch.no_grad()
    def update(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take in the weights after one more step."""
        kept = min(self._decay, (1 + self.n_updates) / (10 + self.n_updates))
        for name, tensor in state.items():
            if tensor.is_floating_point():
                self.state[name].lerp_(tensor, 1 - kept)
            else:
                self.state[name].copy_(tensor)
        self.n_updates += 1

    def restore(self, state: Mapping[str, torch.Tensor], *, n_updates: int) -> None:
        """Take back earlier averages, into the memory there is: its layout decides how the last bit is rounded."""
        for name, tensor in state.items():
            self.state[name].copy_(tensor)
        self.n_updates = n_updates


class TrainingModule:
    """Network, averages and optimiser of one process.

    Every random number of a step follows from the recipe's seed and the place of the step, so nothing of it is remembered. The
    caller keeps torch's global generator: a step seeds it.
    """

    def __init__(self, plan: TrainingPlan, fabric: "Fabric") -> None:
        self._plan = plan
        self._fabric = fabric
        recipe = plan.recipe
        self.channels = len(output_classes(recipe.classes))
        network = new_network(recipe.network, layers=len(plan.inputs), classes=self.channels, seed=recipe.seed)
        # 1.3 times as fast on a CPU, and more on a GPU.
        self.network = network.to(fabric.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]  # torch's own stub lacks it
        self._evaluated = copy.deepcopy(self.network).eval()
        self._optimiser = build_optimiser(recipe.optimisation, self.network.parameters())
        self._forward, self._stepper = fabric.setup(self.network, self._optimiser)
        self._loss = build_loss(recipe.losses, classes=self.channels)
        decay = recipe.optimisation.ema
        self._average = None if decay is None else MovingAverage(self.network.state_dict(), decay=decay)

    def loss(self, batch: TileBatch, *, epoch: int, place: int) -> tuple[torch.Tensor, TileBatch]:
        """Return the loss of a batch, with its graph, and the batch as augmentation has left it.

        Parameters
        ----------
        batch
            Tiles as read.
        epoch, place
            The epoch, and the place of the step in it, both from 0.
        """
        recipe = self._plan.recipe
        key = (recipe.seed, epoch, place, self._fabric.global_rank)
        torch.manual_seed(seed_of("step", *key))  # what is left to torch: dropout
        shown = augment(batch.to(self._fabric.device), recipe.augmentations, key=key)
        channels = shown.channels(self._plan.inputs, fill=recipe.fill)
        channels = drop_channels(channels, recipe.augmentations, fill=recipe.fill, key=key)
        logits = self._forward(channels.contiguous(memory_format=torch.channels_last))
        return self._loss(logits.float(), shown.target()), shown

    def training_step(self, loss: torch.Tensor, *, learning_rate: float) -> None:
        """Change the weights by a loss's gradients."""
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate
        self._fabric.backward(loss)
        clip = self._plan.recipe.optimisation.gradient_clip
        if clip is not None:
            # Gradients that are not finite are the scaler's business in float16, and the next loss's otherwise.
            self._fabric.clip_gradients(self._forward, self._stepper, max_norm=clip, error_if_nonfinite=False)
        self._stepper.step()
        self._stepper.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update(self.network.state_dict())

    def forward(self, channels: torch.Tensor) -> torch.Tensor:
        """Return probabilities by the weights that `evaluated_state` took."""
        with torch.no_grad(), torch.autocast(channels.device.type, enabled=False):
            return probability_of(self._evaluated(channels.contiguous(memory_format=torch.channels_last)))

    def evaluated_state(self) -> Mapping[str, torch.Tensor]:
        """Take the weights that are evaluated, in every process those of the first: the averages where there are some."""
        state = self.network.state_dict() if self._average is None else self._average.state
        shared: Mapping[str, torch.Tensor] = self._fabric.broadcast(dict(state))
        self._evaluated.load_state_dict(dict(shared))
        return shared

    def checkpoint(self, *, epoch: int, is_done: bool, best: BestWeights, log: Sequence[LogRow]) -> TrainingCheckpoint:
        """Return all that goes on from here, after so many epochs."""
        average = self._average
        return TrainingCheckpoint(
            recipe=self._plan.digest,
            epoch=epoch,
            step=self._plan.first_step[epoch],
            is_done=is_done,
            network=on_cpu(self.network.state_dict()),
            average=None if average is None else on_cpu(average.state),
            n_averaged=0 if average is None else average.n_updates,
            optimiser=self._optimiser.state_dict(),
            scaler=self._fabric.strategy.precision.state_dict(),
            best=best,
            log=tuple(log),
        )

    def restore(self, checkpoint: TrainingCheckpoint) -> None:
        """Go on from a checkpoint."""
        self.network.load_state_dict(dict(checkpoint.network))
        self._optimiser.load_state_dict(dict(checkpoint.optimiser))
        self._fabric.strategy.precision.load_state_dict(dict(checkpoint.scaler))
        if checkpoint.average is not None and self._average is not None:
            self._average.restore(checkpoint.average, n_updates=checkpoint.n_averaged)


def on_cpu(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a copy of a state in memory of its own, in the usual order of numbers."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}


CACHE_BYTES = min(max(psutil.virtual_memory().total // 8, 2**30), 2**34)
"""Chunks of training scenes that are kept, an eighth of the machine's memory; as much again for validation. Results never depend on it,
but a training whose scenes do not fit decodes whole chunks for single tiles, or asks for `blocks_at_once`."""


def fit(fabric: "Fabric", plan: TrainingPlan, show: ShowProgress | None) -> None:
    """Train until no epoch is left or patience has run out, from the last checkpoint on where there is one.

    What comes out is the checkpoint on disk; the first process writes it, at the end of every epoch.

    Raises
    ------
    TrainingError
        A loss is NaN or infinite; tiles cannot be read; the checkpoint cannot.
    """
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), ReadAhead(_readers(plan), num_workers=plan.num_workers) as reader:
        epochs = _Epochs(fabric, plan, show=show)
        while not epochs.is_done:
            epochs.run(reader)


def _readers(plan: TrainingPlan) -> dict[str, TileReader]:
    roles = {"training": plan.recipe.training, "validation": plan.recipe.validation}
    share = CACHE_BYTES // max(plan.num_workers, 1)  # each process has its own
    return {
        role: TileReader(scenes, inputs=plan.inputs, tile=plan.recipe.tile, cache_bytes=share)
        for role, scenes in roles.items()
        if scenes
    }


class _Epochs:
    """One epoch after the other, and what is known after each."""

    def __init__(self, fabric: "Fabric", plan: TrainingPlan, *, show: ShowProgress | None) -> None:
        self._fabric = fabric
        self._plan = plan
        self._show = show
        self._learner = TrainingModule(plan, fabric)
        self._epoch = 0
        self._best: BestWeights | None = None
        self._log: list[LogRow] = []
        self.is_done = False
        if plan.folder.checkpoint.exists():
            self._go_on(TrainingCheckpoint.open(plan.folder.checkpoint))

    def _go_on(self, checkpoint: TrainingCheckpoint) -> None:
        if checkpoint.recipe != self._plan.digest:
            raise TrainingError(
                f"The checkpoint {self._plan.folder.checkpoint} belongs to another recipe. Train into another folder, or with "
                "overwrite=True."
            )
        self.is_done = checkpoint.is_done
        self._learner.restore(checkpoint)
        self._epoch, self._best, self._log = checkpoint.epoch, checkpoint.best, list(checkpoint.log)

    def run(self, reader: ReadAhead) -> None:
        """Run the next epoch, up to its checkpoint."""
        loss, rate = self._learn(reader)
        state = self._learner.evaluated_state()
        metrics = self._validate(reader) if self._plan.validation else None
        self._epoch += 1
        row = _row(metrics, epoch=self._epoch, step=self._plan.first_step[self._epoch], loss=loss, rate=rate)
        self._log.append(row)
        if self._best is None or row.iou is None or (self._best.iou is not None and row.iou > self._best.iou):
            self._best = BestWeights(epoch=self._epoch, iou=row.iou, state=on_cpu(state))
        recipe = self._plan.recipe
        waited = self._epoch - self._best.epoch
        self.is_done = self._epoch == recipe.epochs or (recipe.patience is not None and waited >= recipe.patience)
        if self._fabric.global_rank == 0:
            done = self._learner.checkpoint(epoch=self._epoch, is_done=self.is_done, best=self._best, log=self._log)
            done.save(self._plan.folder.checkpoint)
            write_log(self._plan.folder.log, self._log)
        self._fabric.barrier()
        self._report(step=row.step, loss=loss, rate=rate, row=row)

    def _learn(self, reader: ReadAhead) -> tuple[float, float]:
        """Mean loss and last learning rate of the epoch."""
        plan, epoch = self._plan, self._epoch
        first = plan.first_step[epoch]
        shares = [tiles[self._fabric.global_rank :: self._fabric.world_size] for tiles in plan.batches(epoch)]
        total, rate = 0.0, 0.0
        for place, batch in enumerate(reader.batches("training", shares)):
            rate = learning_rate(plan.recipe.optimisation, step=first + place, steps=plan.steps, epoch=epoch)
            loss, shown = self._learner.loss(batch, epoch=epoch, place=place)
            total += self._checked(loss, shown, shares[place], place=place)
            self._learner.training_step(loss, learning_rate=rate)
            mean = total / (place + 1)
            self._report(step=first + place + 1, loss=mean, rate=rate)
        return total / len(shares), rate

    def _checked(self, loss: torch.Tensor, batch: TileBatch, tiles: tuple[TileAddress, ...], *, place: int) -> float:
        """Return the loss as a number, averaged over the processes; before the weights have seen it."""
        fabric = self._fabric
        each = torch.zeros(fabric.world_size, dtype=torch.float64)
        each[fabric.global_rank] = float(loss.detach())
        each = _summed(fabric, each)
        lost = torch.nonzero(~each.isfinite())
        if not len(lost):
            return float(each.mean())
        value = float(each[lost[0]])
        # The first process that has one, because the others would write into the same file; they wait until it is there.
        if fabric.global_rank == int(lost[0]):
            self._keep(batch, tiles, place=place, loss=value)
        fabric.barrier()
        names = [scene.name for scene in self._plan.recipe.training]
        places = ", ".join(f"{names[tile.scene]} at {tile.start}" for tile in self._plan.batches(self._epoch)[place])
        raise TrainingError(
            f"The loss is {value} in epoch {self._epoch + 1}, step {place + 1}, on tiles of {places}. The batch is kept in "
            f"{self._plan.folder.failed_batch}. Look there for extreme values; a lower learning rate, gradient_clip=1, a warm-up, or "
            "precision='float32' helps where the values are fine."
        )

    def _keep(self, batch: TileBatch, tiles: tuple[TileAddress, ...], *, place: int, loss: float) -> None:
        here = batch.to(torch.device("cpu"))
        with staged(self._plan.folder.failed_batch, overwrite=True) as draft:
            np.savez_compressed(
                draft,
                stored=here.stored.numpy(),
                valid=here.valid.numpy(),
                truth=here.truth.numpy(),
                layers=np.array(here.layers),
                scenes=np.array([self._plan.recipe.training[tile.scene].name for tile in tiles]),
                starts=np.array([tile.start for tile in tiles]),
                epoch=self._epoch + 1,
                step=place + 1,
                loss=loss,
            )

    def _validate(self, reader: ReadAhead) -> EpochMetrics:
        plan, fabric = self._plan, self._fabric
        share = plan.validation[fabric.global_rank :: fabric.world_size]
        size = max(plan.recipe.batch_size // fabric.world_size, 1)
        own = evaluate_epoch(
            self._learner.forward,
            reader.batches("validation", chunked(share, size)),
            inputs=plan.inputs,
            fill=plan.recipe.fill,
            channels=self._learner.channels,
            device=fabric.device,
        )
        return own.with_counts(_summed(fabric, own.to_counts()))

    def _report(self, *, step: int, loss: float, rate: float, row: LogRow | None = None) -> None:
        if self._show is not None:
            epoch = self._epoch + 1 if row is None else row.epoch
            moment = partial(Progress, epochs=self._plan.recipe.epochs, steps=self._plan.steps)
            self._show(moment(epoch=epoch, step=step, loss=loss, learning_rate=rate, row=row))


def _summed(fabric: "Fabric", numbers: torch.Tensor) -> torch.Tensor:
    """Return the sum of a tensor over all processes, on the CPU."""
    return cast("torch.Tensor", fabric.all_reduce(numbers, reduce_op="sum")).cpu()


def _row(metrics: EpochMetrics | None, *, epoch: int, step: int, loss: float, rate: float) -> LogRow:
    row = LogRow(epoch=epoch, step=step, loss=loss, learning_rate=rate)
    if metrics is None:
        return row
    threshold = metrics.best_threshold
    each = metrics.by_class(threshold)
    average_precision = metrics.mean_average_precision()
    scores: dict[str, Any] = {
        "iou": metrics.mean_iou(threshold),
        "average_precision": None if math.isnan(average_precision) else average_precision,
        **{name: float(np.mean([getattr(one, name) for one in each])) for name in ("precision", "recall", "f1")},
    }
    return replace(row, threshold=threshold, **scores)
