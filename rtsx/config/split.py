"""Division of scenes into training, validation and test by their groups."""

import random
from collections.abc import Sequence

from pydantic import Field, model_validator

from rtsx.config.strict import Strict
from rtsx.errors import ConfigError

__all__ = ["SplitConfig", "divided"]


class SplitConfig(Strict):
    """Parts of the training scenes that are held out; a group is never divided."""

    validation: float = Field(default=0.2, gt=0, lt=1)
    """Part of all scenes that choose epoch, threshold and temperature; at least one group."""
    test: float = Field(default=0.0, ge=0, lt=1)
    """Part of all scenes that only measure the result; above 0, at least one group."""
    seed: int = 0
    """Seed of the draw."""

    @model_validator(mode="after")
    def _leaves_some(self) -> "SplitConfig":
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation and test are parts of all scenes that leave some for training; got {self.validation} and "
                f"{self.test}"
            )
        return self


def divided(groups: Sequence[str], split: SplitConfig) -> tuple[list[int], list[int], list[int]]:
    """Places of the scenes for training, validation and test, each ascending; a pure function of its arguments.

    Groups are shuffled, and given to validation, then to test, until each has its part of the scenes.

    Raises
    ------
    ConfigError
        There are too few groups.

    Examples
    --------
    >>> divided(["a", "a", "b", "c", "d"], SplitConfig(validation=0.25))
    ([0, 1, 2, 4], [3], [])
    """
    members: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    # Sorted first, so that the draw does not depend on the order in which the scenes are listed.
    order = sorted(members)
    random.Random(split.seed).shuffle(order)
    wanted = [split.validation] + ([split.test] if split.test else [])
    if len(order) <= len(wanted):
        raise ConfigError(
            f"A split into training, validation{' and test' if split.test else ''} needs more than {len(wanted)} groups; "
            f"the scenes are of {len(order)}: {', '.join(sorted(members))}. Give scenes another group, or list the scenes "
            "of each set"
        )
    held: list[list[int]] = []
    for later, part in enumerate(wanted, 1):
        taken: list[int] = []
        # The last groups are left for the sets that come after, training the last of them.
        while not taken or (
            len(order) > len(wanted) - later + 1 and len(taken) + len(members[order[0]]) / 2 <= part * len(groups)
        ):
            taken += members[order.pop(0)]
        held.append(sorted(taken))
    training = sorted(place for group in order for place in members[group])
    return training, held[0], held[1] if split.test else []
