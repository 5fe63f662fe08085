"""A model seen as one of Pyro's distributions. Needs Pyro; imported only where Pyro is loaded already."""

from pyro.distributions.torch_distribution import TorchDistributionMixin

from longflow.distributions.torch_distribution import TorchDistribution


class PyroDistribution(TorchDistribution, TorchDistributionMixin):
    """p(x | c) of a model for `pyro.sample`: in a guide (register the model with `pyro.module`), or as a likelihood.

    All is as in `TorchDistribution`; what Pyro asks beside that (calls, plates, masks, score parts) is Pyro's own.
    """
