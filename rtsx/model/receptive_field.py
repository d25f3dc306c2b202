"""How far the network's output depends on its input: a perturbation test on synthetic input, run once per bundle.

A network's theoretical field of view says little: its weights decide how much of it counts. So the test asks what a
planner has to know. A block in the middle of a tile is watched; everything farther away from it than some distance is
replaced by something quite different, or cut off; and the radius is the least distance at which nothing of this moves
any output of the block by more than half a quantum. The reach belongs to the weights: the same architecture, trained
again, has another.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere

from rtsx.errors import BundleError
from rtsx.model.inputs import InputLayer
from rtsx.model.metadata import Reach
from rtsx.model.network import Network

_GRAINS = (64, 16, 4, 1)
"""Sizes of the features in px; all count the same, as in ground that is rough at every scale."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SyntheticInputs:
    """A supply of square scenes in channel units, the same each time."""

    ranges: tuple[tuple[float, float], ...]
    """Channel values (low, high) of each layer."""

    def field(self, side: int, *, number: int) -> torch.Tensor:
        """Return the scene (1, layer, side, side) float32; every number is another one.

        Examples
        --------
        >>> scene = SyntheticInputs(ranges=((0.0, 1.0), (-2.0, 2.0))).field(32, number=3)
        >>> scene.shape, bool(scene[0, 0].min() >= 0), bool(scene[0, 1].min() < -1)
        (torch.Size([1, 2, 32, 32]), True, True)
        """
        generator = torch.Generator().manual_seed(number)
        field = torch.zeros(1, len(self.ranges), side, side)
        for grain in _GRAINS:
            cells = side // grain + 2
            rough = torch.randn(1, len(self.ranges), cells, cells, generator=generator)
            whole = F.interpolate(rough, scale_factor=grain, mode="bilinear") if grain > 1 else rough
            field += whole[..., :side, :side]
        low, high = self._limits()
        # Within four deviations lies all of a normal field but a few pixels, which the clamp takes.
        return torch.clamp(low + (high - low) * (field / len(_GRAINS) ** 0.5 / 4 + 0.5), low, high)

    def flat(self, side: int, *, at: float) -> torch.Tensor:
        """Return the scene (1, layer, side, side) of one value: each layer's low for `at` 0, its high for 1."""
        low, high = self._limits()
        return (low + (high - low) * at).expand(1, -1, side, side)

    def _limits(self) -> tuple[torch.Tensor, torch.Tensor]:
        low, high = torch.tensor(self.ranges).T[:, None, :, None, None]
        return low, high


def input_ranges(inputs: Sequence[InputLayer]) -> tuple[tuple[float, float], ...]:
    """Return the channel values that each input is likely to take, as (low, high).

    Its clip where it has one; two standard deviations where physical 0 lies below the channel's 0, as it does after
    ``(physical - mean) / std``; else 0 to 1.

    Examples
    --------
    >>> input_ranges([InputLayer.from_statistics("red", mean=10, std=4), InputLayer(name="slope", scale=1 / 90)])
    ((-2.0, 2.0), (0.0, 1.0))
    """
    return tuple(layer.clip or ((-2.0, 2.0) if layer.offset < 0 else (0.0, 1.0)) for layer in inputs)


_SMALLEST_TILE = 96
"""Side in px of the first tile that is tried; the next is twice as large."""
_LARGEST_TILE = 1056
"""Side in px of the last: what looks farther needs so much overlap that larger tiles gain nothing."""
_WATCHED = 32
"""Side in px of the block that is watched, or one stride where that is larger: enough pixels for some to be touchy."""
_UNDECIDED = 1e-4
"""Nearer than this to 0 or 1, float32 probabilities are too coarse to tell what moved them."""


def measure_receptive_field(
    network: Network,
    *,
    n_layers: int,
    stride: int,
    tile: int,
    ranges: Sequence[tuple[float, float]] | None = None,
    quantum: float = 0.01,
) -> Reach:
    """Find out how far a network looks, whether it looks at its whole tile, and its stride.

    Takes some seconds: a few dozen passes over tiles that grow until they hold the reach, at most 1056 px. Where an
    output is near 0 or 1 a movement hardly shows, so all are estimated as if the pixel were undecided: the change of
    the logit, seen from probability one half.

    Parameters
    ----------
    network
        The network, on any device; in float32, because rounding would count as movement.
    n_layers
        Its input channels.
    stride
        The declared stride in px. The radius is a multiple of it, rounded up.
    tile
        The tile in px that it is meant for: the only one it may take.
    ranges
        Likely channel values (low, high) of each layer, see `input_ranges`; None: 0 to 1.
    quantum
        Step of the stored probability; half of it is what counts as moved.

    Returns
    -------
    Reach
        With `depends_on_tile` where no tile up to 1056 px held the reach, or the network takes no tile but its own;
        `radius` is then the farthest distance tried.

    Raises
    ------
    BundleError
        The declared stride is not a multiple of the network's, or the network does not run on its tile.

    Examples
    --------
    >>> from rtsx.model.network import StubNetwork
    >>> stub = StubNetwork(torch.nn.AvgPool2d(7, stride=1, padding=3))
    >>> measure_receptive_field(stub, n_layers=1, stride=1, tile=64)
    Reach(stride=1, radius=3, depends_on_tile=False)
    """
    scenery = SyntheticInputs(ranges=tuple(ranges or ((0.0, 1.0),) * n_layers))
    probe = _Probe(network=network, scenery=scenery, stride=stride, least=quantum / 2)
    margins = tuple(_margins(stride, watched=probe.watched))
    smallest = probe.watched + 2 * margins[0]
    if not probe.takes(smallest):
        probe.logits(scenery.field(tile, number=0))  # a network that does not run at all says so itself
        return Reach(stride=stride, radius=tile // 2, depends_on_tile=True)
    if not probe.takes(smallest + stride):
        raise BundleError(
            f"The network is declared with stride {stride} px and takes tiles of {smallest} px, but not of "
            f"{smallest + stride} px. Pass its true stride, often 32."
        )
    moved = -1
    for margin in margins:
        views = probe.views(margin)
        # A quarter of the margin changes in any case, because one thin ring would hardly move the mean of a whole tile.
        farthest = 3 * margin // 4 // stride
        if any(view.moves(farthest * stride) for view in views):
            moved = farthest
            continue
        radius = _least_unmoved(views, moved=moved, unmoved=farthest) * stride
        return Reach(stride=probe.checked_stride(radius + 2 * stride), radius=radius, depends_on_tile=False)
    return Reach(stride=probe.checked_stride(margins[0]), radius=3 * margins[-1] // 4, depends_on_tile=True)


def _margins(stride: int, *, watched: int) -> Iterator[int]:
    """Yield the multiples of the stride that lie between the watched block and the edge of the tile, each twice the last."""
    margin = max(2, (_SMALLEST_TILE - watched) // 2 // stride) * stride
    yield margin
    while watched + 4 * margin <= _LARGEST_TILE:
        margin *= 2
        yield margin


@dataclass(frozen=True, kw_only=True, eq=False)
class _Probe:
    """The network under test and what it is shown."""

    network: Network
    """Batch to probabilities."""
    scenery: SyntheticInputs
    """Where scenes come from."""
    stride: int
    """Declared stride in px."""
    least: float
    """Movements of probability up to here do not count."""

    @property
    def watched(self) -> int:
        """Side in px of the block that is watched, a multiple of the stride."""
        return max(1, _WATCHED // self.stride) * self.stride

    def logits(self, scene: torch.Tensor) -> torch.Tensor:
        """Return the answers (1, class, y, x) as logits, on the host."""
        output = self.network(scene.contiguous().to(self.network.device)).cpu()
        return output.clamp(_UNDECIDED, 1 - _UNDECIDED).logit()

    def moved(self, before: torch.Tensor, after: torch.Tensor) -> bool:
        """Test whether two answers in logits differ by more than half a quantum for a pixel that is undecided."""
        # sigmoid(d / 2) - sigmoid(-d / 2), the most that a change of the logit by d can do to a probability
        return bool((after - before).abs().max().div(4).tanh() > self.least)

    def takes(self, side: int) -> bool:
        """Test whether the network runs on tiles of this side."""
        try:
            self.network(self.scenery.flat(side, at=0.5).contiguous().to(self.network.device))
        except BundleError:
            return False
        return True

    def views(self, margin: int) -> tuple["_View", ...]:
        """Return the scenes to watch, each with its own ideas of what lies far away."""
        side = self.watched + 2 * margin
        ground = [self.scenery.field(side, number=number) for number in range(3)]
        return (
            _View(probe=self, near=ground[0], far=(None, self.scenery.flat(side, at=1))),
            _View(probe=self, near=ground[1], far=(None, ground[2])),
        )

    def checked_stride(self, margin: int) -> int:
        """Return the least shift of the scene that only shifts the answer.

        Raises
        ------
        BundleError
            The declared stride is no multiple of it.
        """
        start, width = margin, self.watched
        side = width + 2 * margin
        scene = self.scenery.field(side + margin, number=3)
        first = self.logits(scene[..., :side, :side])

        def moves(shift: int) -> bool:
            then = self.logits(scene[..., shift : shift + side, shift : shift + side])
            after = then[..., start : start + width, start : start + width]
            return self.moved(first[..., start + shift :, start + shift :][..., :width, :width], after)

        if not moves(self.stride):
            stride = self.stride
            while stride % 2 == 0 and not moves(stride // 2):
                stride //= 2
            return stride
        for factor in (2, 4, 8, 16, 32):
            if factor * self.stride <= margin and not moves(factor * self.stride):
                raise BundleError(
                    f"The network is declared with stride {self.stride} px, but its answers repeat only when the scene "
                    f"moves by {factor * self.stride} px. Pass stride={factor * self.stride}."
                )
        return self.stride


@dataclass(frozen=True, kw_only=True, eq=False)
class _View:
    """One scene, its middle block watched while the rest changes."""

    probe: _Probe
    """The network under test."""
    near: torch.Tensor
    """The tile (1, layer, y, x) as it is."""
    far: tuple[torch.Tensor | None, ...]
    """What replaces it far away, each as large as the tile; None: the tile is cut off there."""

    @cached_property
    def output(self) -> torch.Tensor:
        """Logits of the watched block (1, class, y, x) while nothing changes."""
        return _middle(self.probe.logits(self.near), self.probe.watched)

    def moves(self, distance: int) -> bool:
        """Test whether the watched block moves when everything beyond a distance from it is replaced, or cut off."""
        scene = _middle(self.near, self.probe.watched + 2 * distance)
        changed = (scene if far is None else _with_middle(far, scene) for far in self.far)
        return any(self._is_moved_by(each) for each in changed)

    def _is_moved_by(self, scene: torch.Tensor) -> bool:
        try:
            after = self.probe.logits(scene)
        except BundleError:
            return True  # a cut that leaves too little for the network to run on
        return self.probe.moved(self.output, _middle(after, self.probe.watched))


def _least_unmoved(views: Sequence[_View], *, moved: int, unmoved: int) -> int:
    """Return the fewest strides of distance beyond which nothing moves a view, between one that does not do and one that does."""
    while unmoved - moved > 1:
        between = (moved + unmoved) // 2
        if any(view.moves(between * view.probe.stride) for view in views):
            moved = between
        else:
            unmoved = between
    return unmoved


def _middle(image: torch.Tensor, side: int) -> torch.Tensor:
    start = (image.shape[-1] - side) // 2
    return image[..., start : start + side, start : start + side]


def _with_middle(image: torch.Tensor, middle: torch.Tensor) -> torch.Tensor:
    """Copy of an image with its middle replaced."""
    copy = image.clone(memory_format=torch.contiguous_format)
    _middle(copy, middle.shape[-1]).copy_(middle)
    return copy
