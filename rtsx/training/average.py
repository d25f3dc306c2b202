"""A moving average of weights, which is smoother than any one step and usually answers better."""

from collections.abc import Mapping

import torch

__all__ = ["MovingAverage"]


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
