"""What the commands print for people: results as lines of text."""

from longflow.words.checks import check_words
from longflow.words.codes import cluster_words, diagnose_words, probe_words
from longflow.words.likelihood import evaluate_words, train_words
from longflow.words.lists import list_words, rows, sizes_words, wrote_words
from longflow.words.quality import quality_words
from longflow.words.result import Result

__all__ = [
    "Result",
    "check_words",
    "cluster_words",
    "diagnose_words",
    "evaluate_words",
    "list_words",
    "probe_words",
    "quality_words",
    "rows",
    "sizes_words",
    "train_words",
    "wrote_words",
]
