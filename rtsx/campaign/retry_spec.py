"""What a campaign does about cells that fail."""

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from rtsx.errors import CampaignError

__all__ = ["RetrySpec"]


@dataclass(frozen=True, kw_only=True)
class RetrySpec:
    """Retries, leases, and when to give up.

    Raises
    ------
    CampaignError
        A number is out of its range.
    """

    attempts: int = 4
    """Times that a cell is tried in one run, while its failures are of the kind that can pass."""
    backoff_s: float = 5.0
    """Seconds before the second attempt; doubled for each further one, and spread at random by up to a half."""
    longest_backoff_s: float = 300.0
    """Bound of that pause, seconds."""
    most_failures: int = 100
    """Cells set aside in one run after which it stops: so many rarely have reasons of their own."""
    lease_s: float = 120.0
    """Seconds after its last renewal at which a cell's lease is free for another run. Renewed at a third of it."""

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        for name, value in vars(self).items():
            kind: Any = Integral if name in ("attempts", "most_failures") else Real
            if not isinstance(value, kind) or isinstance(value, bool):
                raise CampaignError(f"{name} is a {'whole ' if kind is Integral else ''}number; got {value!r}.")
        if self.attempts < 1 or self.most_failures < 1:
            raise CampaignError(
                f"attempts and most_failures are at least 1; got {self.attempts} and {self.most_failures}."
            )
        if not (0 <= self.backoff_s <= self.longest_backoff_s) or not self.lease_s > 0:
            raise CampaignError(
                f"backoff_s lies between 0 and longest_backoff_s, and lease_s is above 0; got {self.backoff_s}, "
                f"{self.longest_backoff_s} and {self.lease_s} s."
            )
