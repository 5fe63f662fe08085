"""Data sets: a catalogue of public ones, and the user's own files."""

from longflow.data.catalogue import CATALOGUE, Source, load
from longflow.data.content import Content
from longflow.data.contexts import Contexts
from longflow.data.dataset import SPLITS, Dataset
from longflow.data.events import Events
from longflow.data.files import read
from longflow.data.support import Support

__all__ = ["CATALOGUE", "SPLITS", "Content", "Contexts", "Dataset", "Events", "Source", "Support", "load", "read"]
