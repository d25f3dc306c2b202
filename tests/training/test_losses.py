import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rtsx.errors import TrainingError
from rtsx.labels import IGNORED
from rtsx.training import LossTerm
from rtsx.training.losses import LOSSES, build_loss, check_losses

BINARY = ("JaccardLoss", "DiceLoss", "FocalLoss", "LovaszLoss", "SoftBCEWithLogitsLoss")
SEVERAL = ("JaccardLoss", "DiceLoss", "FocalLoss", "LovaszLoss", "SoftCrossEntropyLoss")
CASES = [(name, 1) for name in BINARY] + [(name, 3) for name in SEVERAL]


def example(classes: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn((2, classes, 6, 5), generator=random)
    target = torch.randint(0, max(classes, 2), (2, 6, 5), generator=random).to(torch.uint8)
    target[torch.rand((2, 6, 5), generator=random) < 0.3] = IGNORED
    return logits, target


def sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-values))


def lovasz(errors: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """The Lovasz extension of the Jaccard loss, by its definition: errors in falling order, each times what it adds."""
    order = np.argsort(-errors, kind="stable")
    total, before = 0.0, 0.0
    wrong: set[int] = set()
    for place in order:
        wrong.add(int(place))
        missed = sum(truth[i] for i in wrong)
        union = truth.sum() + sum(1 - truth[i] for i in wrong)
        jaccard = 1 - (truth.sum() - missed) / union
        total += errors[place] * (jaccard - before)
        before = jaccard
    return total


def written_out(name: str, logits: torch.Tensor, target: torch.Tensor) -> float:
    """Each loss from its paper's formula, in NumPy, over the pixels that count."""
    kept = (target != IGNORED).numpy().ravel()
    values = logits.movedim(1, -1).reshape(-1, logits.shape[1]).numpy().astype(np.float64)[kept]
    truth = target.numpy().ravel()[kept].astype(int)
    several = values.shape[1] > 1
    if several:
        p = np.exp(values - values.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        hot = np.eye(values.shape[1])[truth]
    else:
        p, hot = sigmoid(values), truth[:, None].astype(float)
    of_true = (p * hot).sum(1) if several else np.where(truth == 1, p[:, 0], 1 - p[:, 0])
    both = (p * hot).sum(0)
    match name:
        case "JaccardLoss":
            # The library takes |p - t|, which for hard targets gives the same sums.
            return float(np.mean(1 - both / (p.sum(0) + hot.sum(0) - both)))
        case "DiceLoss":
            return float(np.mean(1 - 2 * both / (p.sum(0) + hot.sum(0))))
        case "FocalLoss":
            return float(np.mean((1 - of_true) ** 2 * -np.log(of_true)))
        case "LovaszLoss" if several:
            return float(np.mean([lovasz(np.abs(hot[:, k] - p[:, k]), hot[:, k]) for k in range(p.shape[1])]))
        case "LovaszLoss":
            margins = 1 - values[:, 0] * (2 * hot[:, 0] - 1)
            return lovasz(np.maximum(margins, 0), hot[:, 0])
        case _:
            return float(np.mean(-np.log(of_true)))


@pytest.mark.parametrize(("name", "classes"), CASES)
def test_each_loss_is_its_formula_with_one_sigmoid_or_softmax(name, classes):
    logits, target = example(classes)
    loss = build_loss([LossTerm(name=name)], classes=classes)
    assert float(loss(logits, target)) == pytest.approx(written_out(name, logits, target), rel=1e-5)


@pytest.mark.parametrize(("name", "classes"), CASES)
def test_what_stands_in_an_ignored_pixel_changes_nothing(name, classes):
    logits, target = example(classes)
    loss = build_loss([LossTerm(name=name)], classes=classes)
    spoiled = logits.masked_fill((target == IGNORED)[:, None], float("nan"))
    assert float(loss(spoiled, target)) == float(loss(logits, target))


@pytest.mark.parametrize(("name", "classes"), CASES)
def test_there_is_a_gradient_and_none_at_ignored_pixels(name, classes):
    logits, target = example(classes)
    logits.requires_grad_()
    build_loss([LossTerm(name=name)], classes=classes)(logits, target).backward()
    gradient = logits.grad
    assert gradient.isfinite().all()
    assert (gradient != 0).any()
    assert (gradient.masked_select((target == IGNORED)[:, None].expand_as(gradient)) == 0).all()


@pytest.mark.parametrize(("name", "classes"), CASES)
def test_the_right_answer_is_better_than_the_wrong_one(name, classes):
    _, target = example(classes)
    loss = build_loss([LossTerm(name=name)], classes=classes)
    hard = torch.nn.functional.one_hot(target.long() % max(classes, 2), max(classes, 2)).movedim(-1, 1).float() * 8 - 4
    hard = hard[:, 1:] if classes == 1 else hard
    assert float(loss(hard, target)) < 0.2 < float(loss(-hard, target))


@pytest.mark.parametrize(("name", "classes"), CASES)
def test_a_batch_without_a_pixel_that_counts_gives_zero_with_a_gradient(name, classes):
    logits = torch.full((1, classes, 2, 2), float("inf"), requires_grad=True)
    value = build_loss([LossTerm(name=name)], classes=classes)(
        logits, torch.full((1, 2, 2), IGNORED, dtype=torch.uint8)
    )
    assert value.item() == 0
    value.backward()
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_full(classes, dtype):
    logits, target = example(classes)
    name = "SoftBCEWithLogitsLoss" if classes == 1 else "SoftCrossEntropyLoss"
    loss = build_loss([LossTerm(name=name), LossTerm(name="DiceLoss")], classes=classes)
    assert loss(logits.to(dtype), target).dtype == torch.float32
    assert float(loss(logits.to(dtype), target)) == float(loss(logits.to(dtype).float(), target))


def test_terms_are_weighted_and_added():
    logits, target = example(1)
    parts = [LossTerm(name="DiceLoss", weight=0.25), LossTerm(name="FocalLoss", weight=3.0)]
    alone = [float(build_loss([LossTerm(name=part.name)], classes=1)(logits, target)) for part in parts]
    assert float(build_loss(parts, classes=1)(logits, target)) == pytest.approx(0.25 * alone[0] + 3 * alone[1])


def value_of(name: str, classes: int = 1, **options: float) -> float:
    return float(build_loss([LossTerm(name=name, options=options)], classes=classes)(*example(classes)))


def test_options_are_used():
    assert value_of("FocalLoss") == value_of("FocalLoss", gamma=2)
    assert value_of("FocalLoss", gamma=0) == pytest.approx(value_of("SoftBCEWithLogitsLoss"))
    assert value_of("FocalLoss", 3, gamma=0) == pytest.approx(value_of("SoftCrossEntropyLoss", 3))
    assert value_of("FocalLoss", alpha=0.5) == pytest.approx(value_of("FocalLoss") / 2)
    assert value_of("DiceLoss", log_loss=True) == pytest.approx(-np.log(1 - value_of("DiceLoss")))
    assert value_of("JaccardLoss", smooth=100) < value_of("JaccardLoss")
    assert value_of("SoftBCEWithLogitsLoss", pos_weight=5) > value_of("SoftBCEWithLogitsLoss")


def test_label_smoothing_is_a_share_for_the_other_classes():
    logits, target = example(3)
    chosen, wanted = logits.movedim(1, -1)[target != IGNORED], target[target != IGNORED].long()
    smoothed = torch.nn.functional.cross_entropy(chosen, wanted, label_smoothing=0.2)
    assert value_of("SoftCrossEntropyLoss", 3, smooth_factor=0.2) == pytest.approx(float(smoothed), rel=1e-5)
    logits, target = example(1)
    chosen, soft = logits[:, 0][target != IGNORED], target[target != IGNORED].float() * 0.8 + 0.1
    expected = torch.nn.functional.binary_cross_entropy_with_logits(chosen, soft)
    assert value_of("SoftBCEWithLogitsLoss", smooth_factor=0.1) == pytest.approx(float(expected), rel=1e-5)


def test_the_promised_losses_are_there():
    assert set(LOSSES) == {*BINARY, *SEVERAL}


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (LossTerm(name="diceloss"), "There is no loss 'diceloss'. Did you mean 'DiceLoss'?"),
        (LossTerm(name="DiceLoss", weight=0), "weight of DiceLoss has to be above 0; got 0"),
        (LossTerm(name="DiceLoss", weight=float("nan")), "weight of DiceLoss has to be above 0; got nan"),
        (LossTerm(name="FocalLoss", options={"gama": 2}), "FocalLoss has no option 'gama'. Did you mean 'gamma'?"),
        (LossTerm(name="FocalLoss", options={"gamma": -1}), "gamma of FocalLoss has to be from 0 to inf; got -1"),
        (LossTerm(name="FocalLoss", options={"gamma": True}), "gamma of FocalLoss has to be a number; got True"),
        (LossTerm(name="DiceLoss", options={"log_loss": 1}), "log_loss of DiceLoss has to be true or false; got 1"),
        (LossTerm(name="LovaszLoss", options={"gamma": 1}), "LovaszLoss has no option 'gamma'. It takes none."),
    ],
)
def test_bad_terms_are_refused(term, message):
    with pytest.raises(TrainingError, match=message.replace("?", r"\?")):
        check_losses([term])


def test_terms_that_do_not_suit_the_classes_are_refused():
    with pytest.raises(TrainingError, match="at least one loss"):
        check_losses([])
    with pytest.raises(
        TrainingError, match=r"SoftBCEWithLogitsLoss is for one class; this network has 3.*SoftCrossEntropyLoss"
    ):
        build_loss([LossTerm(name="SoftBCEWithLogitsLoss")], classes=3)
    with pytest.raises(TrainingError, match=r"SoftCrossEntropyLoss is for several classes.*Take SoftBCEWithLogitsLoss"):
        build_loss([LossTerm(name="SoftCrossEntropyLoss")], classes=1)
    with pytest.raises(TrainingError, match=r"alpha of FocalLoss.*with 3 classes leave it out"):
        build_loss([LossTerm(name="FocalLoss", options={"alpha": 0.2})], classes=3)
