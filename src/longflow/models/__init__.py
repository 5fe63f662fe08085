"""One paper, one file, one builder; and the catalogue."""

from longflow.models.catalogue import CATALOGUE, Model, build

__all__ = ["CATALOGUE", "Model", "build"]
