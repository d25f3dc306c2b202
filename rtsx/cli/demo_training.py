"""Training of the demo's bundle: one small U-Net, one loss, and the IoU that chooses epoch and threshold."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import segmentation_models_pytorch
import torch
from numpy.typing import NDArray

from rtsx.cli.console import notice
from rtsx.cli.demo_examples import INPUTS, Example, cut
from rtsx.synthetic import TEST_SEEDS, TRAINING_SEEDS, VALIDATION_SEEDS

__all__ = ["Trained", "TrainingPlan", "count_pixels", "train"]

THRESHOLDS = tuple(round(0.2 + 0.05 * step, 2) for step in range(13))
"""Thresholds among which validation chooses."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """Everything that the result depends on, besides the versions of the libraries and the number of threads."""

    training_seeds: tuple[int, ...] = TRAINING_SEEDS
    """One scene of 1024 px each, twice as dense as the demo's."""
    validation_seeds: tuple[int, ...] = VALIDATION_SEEDS
    """One scene of 1024 px each, as dense as the demo's."""
    test_seeds: tuple[int, ...] = TEST_SEEDS
    """One scene like the demo's each."""
    encoder: str = "tu-mobilenetv2_050"
    """Encoder of the U-Net, cut after four halvings; it has no squeeze-and-excitation, so its view is finite."""
    decoder: tuple[int, ...] = (64, 32, 16, 8)
    """Channels of the decoder's blocks, coarse to fine."""
    seed: int = 0
    """Seed of weights, crops and augmentation."""
    steps: int = 600
    """Batches."""
    batch: int = 8
    """Crops per batch."""
    crop: int = 256
    """Side of a crop, px."""
    learning_rate: float = 3e-3
    """Peak of AdamW's learning rate; it warms up over a tenth of the steps and falls as a cosine."""
    weight_decay: float = 0.02
    """AdamW's weight decay."""
    checks: int = 4
    """Validations in the second half of the training; the best is kept."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network that is done."""

    network: torch.nn.Module
    """Channels (tile, layer, y, x) to one logit, in evaluation mode."""
    threshold: float
    """Least probability that counts as a slump."""
    iou: float
    """IoU on the validation scenes at that threshold, which they chose: an upper bound."""


def build_network(plan: TrainingPlan) -> torch.nn.Module:
    """U-Net with random weights from the plan's seed."""
    torch.manual_seed(plan.seed)
    network: torch.nn.Module = segmentation_models_pytorch.Unet(
        encoder_name=plan.encoder,
        encoder_depth=len(plan.decoder),
        encoder_weights=None,
        decoder_channels=plan.decoder,
        in_channels=len(INPUTS),
        classes=1,
    )
    return network.to(memory_format=torch.channels_last)


def loss_of(logits: torch.Tensor, *, truth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus soft Jaccard loss over the valid pixels of a batch (tile, y, x)."""
    target, weight = truth.float(), valid.float()
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, weight=weight, reduction="sum")
    probability = torch.sigmoid(logits) * weight
    hit = (probability * target).sum()
    either = probability.sum() + (target * weight).sum() - hit
    return entropy / weight.sum().clamp(min=1) + 1 - (hit + 1) / (either + 1)


@torch.no_grad()
def count_pixels(
    network: torch.nn.Module, examples: Sequence[Example], *, thresholds: Sequence[float]
) -> NDArray[np.float64]:
    """Pixels in the intersection, found and true (example, threshold, 3), among the valid ones, in one pass a scene."""
    network.eval()
    counts = []
    for example in examples:
        batch = example.channels()[None].contiguous(memory_format=torch.channels_last)
        probability = torch.sigmoid(network(batch))[0, 0].numpy()
        valid = example.valid.numpy()
        truth = example.truth.numpy() & valid
        masks = [(probability >= threshold) & valid for threshold in thresholds]
        counts.append([[(mask & truth).sum(), mask.sum(), truth.sum()] for mask in masks])
    return np.array(counts, np.float64)


def best_threshold(network: torch.nn.Module, examples: Sequence[Example]) -> tuple[float, float]:
    """Threshold with the highest IoU over all examples together, and that IoU."""
    hit, found, true = count_pixels(network, examples, thresholds=THRESHOLDS).sum(axis=0).T
    scores = hit / np.maximum(found + true - hit, 1)
    at = int(scores.argmax())
    return THRESHOLDS[at], float(scores[at])


def step_once(
    network: torch.nn.Module,
    *,
    training: Sequence[Example],
    optimiser: torch.optim.Optimizer,
    plan: TrainingPlan,
    rng: np.random.Generator,
) -> float:
    """Learn from one batch of random crops; returns the loss."""
    network.train()
    crops = [cut(training[int(k)], crop=plan.crop, rng=rng) for k in rng.integers(0, len(training), plan.batch)]
    channels, truth, valid = (torch.stack(parts) for parts in zip(*crops, strict=True))
    optimiser.zero_grad()
    logits = network(channels.contiguous(memory_format=torch.channels_last))[:, 0]
    loss = loss_of(logits, truth=truth, valid=valid)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    return float(loss.item())


def train(plan: TrainingPlan, *, training: Sequence[Example], validation: Sequence[Example]) -> Trained:
    """Train a network and keep the state that does best on the validation examples."""
    network = build_network(plan)
    rng = np.random.default_rng([plan.seed, 1])
    optimiser = torch.optim.AdamW(network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, plan.learning_rate, total_steps=plan.steps, pct_start=0.1, anneal_strategy="cos"
    )
    moments = set(np.linspace(plan.steps / 2, plan.steps, plan.checks).astype(int).tolist())
    kept, best, threshold = {}, -1.0, 0.5
    started, running = time.monotonic(), 0.0
    for step in range(1, plan.steps + 1):
        loss = step_once(network, training=training, optimiser=optimiser, plan=plan, rng=rng)
        schedule.step()
        running += (loss - running) / min(step, 50)
        if step % 50 == 0:
            notice(f"step {step} of {plan.steps}: loss {running:.3f}, {time.monotonic() - started:.0f} s")
        if step in moments:
            cut_at, score = best_threshold(network, validation)
            notice(f"step {step}: validation IoU {score:.4f} at threshold {cut_at}")
            if score > best:
                best, threshold = score, cut_at
                kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(kept)
    return Trained(network=network.eval(), threshold=threshold, iou=best)
