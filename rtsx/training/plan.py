"""The plan of a training: everything that its epochs depend on, found before the first of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import accumulate

from rtsx.model import InputLayer
from rtsx.training.recipe import TrainingRecipe
from rtsx.training.run_folder import RunFolder
from rtsx.training.sampler import TileAddress, sample_epoch, tiles_of_epoch
from rtsx.training.tile_index import TileIndex


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """A recipe and what has been found out about its scenes. Walked twice, it gives the same batches."""

    recipe: TrainingRecipe
    """What was asked for; checked."""
    digest: str
    """Digest of the recipe and its data."""
    inputs: tuple[InputLayer, ...]
    """Channels of the network, with their scaling."""
    index: TileIndex = field(repr=False)
    """Tiles of the training scenes."""
    validation: tuple[TileAddress, ...] = field(repr=False)
    """Tiles of the validation scenes; empty without any."""
    folder: RunFolder
    """Where everything is kept."""
    num_workers: int
    """Processes that read tiles; 0 reads in a thread."""

    @cached_property
    def steps_of_epoch(self) -> tuple[int, ...]:
        """Batches of each epoch."""
        recipe, index = self.recipe, self.index
        if recipe.steps_per_epoch is not None:
            return (recipe.steps_per_epoch,) * recipe.epochs
        # A batch that would not be full is left out, because batch normalisation learns nothing good from one or two tiles.
        counted = partial(tiles_of_epoch, (index.n_positive, index.n_negative), sampling=recipe.sampling, count=None)
        return tuple(
            max(sum(counted(epoch=epoch, epochs=recipe.epochs)) // recipe.batch_size, 1)
            for epoch in range(recipe.epochs)
        )

    @property
    def steps(self) -> int:
        """Batches of all epochs."""
        return sum(self.steps_of_epoch)

    @property
    def first_step(self) -> tuple[int, ...]:
        """Number of each epoch's first step, from 0; one more at the end."""
        return tuple(accumulate(self.steps_of_epoch, initial=0))

    def batches(self, epoch: int) -> Sequence[tuple[TileAddress, ...]]:
        """Tiles of each batch of an epoch, from 0. Every batch is full."""
        size = self.recipe.batch_size
        recipe, count = self.recipe, self.steps_of_epoch[epoch] * size
        tiles = sample_epoch(
            self.index, sampling=recipe.sampling, epoch=epoch, epochs=recipe.epochs, seed=recipe.seed, count=count
        )
        return [tiles[start : start + size] for start in range(0, len(tiles), size)]
