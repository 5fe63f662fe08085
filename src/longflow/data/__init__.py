"""Data sets: a catalogue of public ones, and the user's own files."""

from longflow.data.catalogue import CATALOGUE, Source, load
from longflow.data.content import Content
from longflow.data.dataset import SPLITS, Dataset
from longflow.data.files import read
from longflow.data.support import Support

__all__ = ["CATALOGUE", "SPLITS", "Content", "Dataset", "Source", "Support", "load", "read"]
