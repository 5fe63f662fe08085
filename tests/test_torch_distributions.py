"""A model as one of torch's distributions, and as one of Pyro's where Pyro is."""

import copy
import math
import pickle
import subprocess
import sys

import pytest
import torch
from test_distributions import CASES
from tolerances import SIGMAS, close
from torch.distributions import Independent, MultivariateNormal, Normal, TransformedDistribution, kl_divergence
from torch.distributions.transforms import ExpTransform

import longflow
from longflow.bijections import Affine, Chain, Coupling, Learned, Standardise
from longflow.distributions import (
    ClassNormal,
    Dequantised,
    DiagonalNormal,
    Flow,
    GaussianMixture,
    StandardNormal,
    TorchDistribution,
)
from longflow.errors import UsageError
from longflow.nets import MLP


def conditional(context=(2,)):
    """A flow of three features and a vector of context."""
    coupling = Coupling(Affine(), MLP(1, 4, hidden=8, depth=1, context=math.prod(context)))
    flow = Flow(Chain(coupling, Learned(Affine(), (3,))), StandardNormal((3,)), context)
    for p in flow.parameters():
        torch.nn.init.normal_(p, std=0.4)
    return flow.double()


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].__name__}-{case[1]}")
def case(request):
    cls, index = request.param
    return list(cls.examples())[index]


def test_every_distribution_has_torchs_shapes_and_own_log_prob(case):
    model = case.distribution.double()
    if model.likelihood == "none":
        with pytest.raises(UsageError, match="no density"):
            model.distribution()
        return
    given = case.context
    context = (
        None if given is None else (given.double() if given.is_floating_point() else given).expand(2, *given.shape)
    )
    own = model.distribution(context)
    batch = () if context is None else (2,)
    assert (own.batch_shape, own.event_shape) == (batch, model.shape)
    x = own.sample((4,))
    assert x.shape == (4, *batch, *model.shape)
    torch.manual_seed(1)
    found = own.log_prob(x)
    assert found.shape == (4, *batch)
    torch.manual_seed(1)
    rows = None if context is None else context.repeat(4, *[1] * (context.dim() - 1))
    close(found.flatten(), model.log_prob(x.flatten(0, len(batch)), rows))
    assert own.expand((3, *batch)).sample().shape == (3, *batch, *model.shape)


def test_log_prob_broadcasts_samples_against_batches_as_torch_does():
    flow, c, x = conditional(), doubles(4, 5, 2), doubles(6, 1, 5, 3)
    own = flow.distribution(c)
    found = own.log_prob(x)
    assert found.shape == (6, 4, 5)
    for i, j, k in ((0, 0, 0), (5, 3, 4), (2, 1, 3)):
        close(found[i, j, k], flow.log_prob(x[i, 0, k][None], c[j, k][None])[0])
    assert own.log_prob(doubles(3)).shape == (4, 5)
    assert flow.distribution(c[0, 0]).log_prob(doubles(3)).shape == ()
    assert flow.distribution(c[:0]).log_prob(doubles(0, 5, 3)).shape == (0, 5)
    assert flow.distribution(c).sample((0,)).shape == (0, 4, 5, 3)


def test_contexts_may_have_axes_of_their_own():
    flow = conditional((2, 3))
    flow.bijection.parts[0].conditioner = torch.nn.Identity()

    class Flat(torch.nn.Module):
        def forward(self, x, context=None):
            return context.flatten(1)[:, :4]

    flow.bijection.parts[0].conditioner = Flat()
    assert flow.distribution(doubles(5, 2, 3)).sample((7,)).shape == (7, 5, 3)


def test_expanding_repeats_the_context_and_keeps_the_model():
    flow, c = conditional(), doubles(5, 2)
    own = flow.distribution(c)
    wide = own.expand((4, 5))
    x = doubles(4, 5, 3)
    close(wide.log_prob(x), own.log_prob(x))
    assert type(wide) is type(own)
    assert wide.model is flow
    assert wide.context.data_ptr() == c.data_ptr()
    assert flow.distribution(c[:1]).expand((6,)).sample().shape == (6, 3)


def test_rsample_carries_gradients_to_parameters_and_context_and_sample_none():
    flow, c = conditional(), doubles(5, 2).requires_grad_()
    own = flow.distribution(c)
    assert own.has_rsample
    own.rsample((3,)).square().sum().backward()
    assert c.grad.abs().sum() > 0
    assert all(p.grad.abs().sum() > 0 for p in flow.parameters())
    assert not own.sample((3,)).requires_grad


def test_what_cannot_be_differentiated_says_so():
    levels = Dequantised(Flow(Chain(Standardise(0.0, 4.0)), StandardNormal((2,))), 4)
    for model in (levels, GaussianMixture((2,), 3), Flow(Chain(), GaussianMixture((2,), 3))):
        own = model.distribution()
        assert not own.has_rsample
        with pytest.raises(NotImplementedError, match="differentiable"):
            own.rsample()
        assert own.sample((5,)).shape == (5, 2)
    assert levels.distribution().support.check(torch.tensor([0.0, 3.0])).item()
    assert not levels.distribution().support.check(torch.tensor([0.5, 3.0])).item()


def test_classes_are_a_context_and_none_is_their_mixture():
    model = Flow(Chain(), ClassNormal((2,), torch.tensor([0, 1]), 3))
    torch.nn.init.normal_(model.base.raw_loc)
    x = torch.randn(2)
    by_class = model.distribution(torch.tensor([0, 1, 2])).log_prob(x)
    assert by_class.shape == (3,)
    close(model.distribution().log_prob(x), by_class.logsumexp(0) - math.log(3), 1e-6)


def test_arguments_are_checked_as_torch_checks_them(monkeypatch):
    # torch.compile turns torch's own checks off for the rest of the process.
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)
    flow = conditional()
    own = flow.distribution(doubles(5, 2))
    with pytest.raises(ValueError, match="parameter context"):
        flow.distribution(torch.full((5, 2), math.nan, dtype=torch.float64))
    with pytest.raises(ValueError, match="event_shape"):
        own.log_prob(doubles(5, 2))
    with pytest.raises(ValueError, match="not broadcastable"):
        own.log_prob(doubles(4, 3))
    with pytest.raises(ValueError, match="support"):
        own.log_prob(torch.full((3,), math.nan, dtype=torch.float64))
    with pytest.raises(UsageError, match="context"):
        flow.distribution()
    with pytest.raises(UsageError, match="context"):
        flow.distribution(doubles(5, 3))
    with pytest.raises(UsageError, match="no context"):
        StandardNormal((2,)).distribution(doubles(5, 3))
    with pytest.raises(UsageError, match="classes"):
        ClassNormal((2,), torch.tensor([0]), 3).distribution(torch.tensor([3]))
    unchecked = TorchDistribution(flow, torch.full((5, 2), math.nan, dtype=torch.float64), validate_args=False)
    assert unchecked.log_prob(doubles(3)).isnan().all()
    assert not unchecked.expand((2, 5))._validate_args


def test_torchs_own_wrappers_stand_on_it():
    flow = conditional()
    own = flow.distribution(doubles(4, 2))
    x = own.sample()
    close(Independent(own, 1).log_prob(x), own.log_prob(x).sum())
    positive = TransformedDistribution(own, [ExpTransform()])
    y = positive.rsample((6,))
    assert (y > 0).all()
    close(positive.log_prob(y), own.log_prob(y.log()) - y.log().sum(-1))


def test_the_divergence_of_draws_is_that_of_the_closed_form():
    """A flow that is a normal: KL by draws of `rsample` against torch's registered formula."""
    model = DiagonalNormal((2,)).double()
    with torch.no_grad():
        model.loc.copy_(torch.tensor([0.5, -1.0]))
        model.log_scale.copy_(torch.tensor([0.3, -0.2]))
    q, p = model.distribution(), MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    exact = kl_divergence(Independent(Normal(model.loc, model.log_scale.exp()), 1), Independent(Normal(p.loc, 1.0), 1))
    z = q.rsample((20000,))
    terms = (q.log_prob(z) - p.log_prob(z)).detach()
    assert abs(terms.mean() - exact.detach()) < SIGMAS * terms.std() / math.sqrt(len(terms))
    with pytest.raises(NotImplementedError):
        kl_divergence(q, p)


def test_it_can_be_copied_and_pickled():
    own = conditional().distribution(doubles(4, 2))
    x = own.sample()
    for other in (copy.deepcopy(own), pickle.loads(pickle.dumps(own))):
        close(other.log_prob(x), own.log_prob(x))


def test_importing_longflow_leaves_torchs_distributions_as_they_are():
    code = """
import torch
from torch.distributions import Distribution, Normal, constraints, kl, transforms
import torch.distributions as d
def seen():
    classes = [c for c in vars(d).values() if isinstance(c, type)]
    return (Distribution._validate_args, len(kl._KL_REGISTRY), len(d.biject_to._registry),
            {c.__name__: {k: id(v) for k, v in vars(c).items()} for c in classes})
before = seen()
import longflow, longflow.distributions, longflow.models, longflow.sklearn, longflow.anomaly
longflow.build("realnvp", shape=(2,)).distribution().log_prob(torch.zeros(2))
assert seen() == before
try:
    Normal(0.0, -1.0)
except ValueError:
    print("still checked")
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "still checked", found.stderr


def test_pyro_takes_it_as_guide_and_as_likelihood():
    pyro = pytest.importorskip("pyro")
    from pyro.infer import SVI, Trace_ELBO

    from longflow.distributions.pyro_distribution import PyroDistribution

    flow = longflow.build("realnvp", shape=(2,), width=8, blocks=1)
    assert isinstance(flow.distribution(), PyroDistribution)

    def model():
        pyro.sample("z", pyro.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2)))

    def guide():
        pyro.module("flow", flow)
        pyro.sample("z", flow.distribution())

    inference = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO(num_particles=8, vectorize_particles=True))
    losses = [inference.step() for _ in range(60)]
    assert sum(losses[-10:]) < sum(losses[:10])
