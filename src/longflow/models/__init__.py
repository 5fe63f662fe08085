"""One paper, one file, one builder; and the catalogue."""

from longflow.models.assemble import PREPROCESSING, assemble, load, put_weights
from longflow.models.catalogue import CATALOGUE, Model, Published, build

__all__ = ["CATALOGUE", "PREPROCESSING", "Model", "Published", "assemble", "build", "load", "put_weights"]
