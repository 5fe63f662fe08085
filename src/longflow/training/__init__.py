"""Training: one visible loop, drawn from by whoever logs, samples and saves."""

from longflow.training.batches import Batches
from longflow.training.loop import Progress, State, train
from longflow.training.recipe import Recipe

__all__ = ["Batches", "Progress", "Recipe", "State", "train"]
