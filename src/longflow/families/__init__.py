"""Models that are not plain densities."""

from longflow.families.rectangular import ManifoldLikelihood

__all__ = ["ManifoldLikelihood"]
