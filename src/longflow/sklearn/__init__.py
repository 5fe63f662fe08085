"""Flows as scikit-learn estimators: they translate and call."""

from longflow.sklearn.density import FlowDensity
from longflow.sklearn.outlier import FlowOutlier

__all__ = ["FlowDensity", "FlowOutlier"]
