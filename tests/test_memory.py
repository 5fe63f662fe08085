"""Memory modes: the same values, the same gradients, the same state_dict, and less memory."""

import warnings

import pytest
import torch
from tolerances import close

import longflow
from longflow.bijections import Affine, Chain, Learned, Logit, Scale, adapt
from longflow.errors import UsageError


def glow(memory, shape=(1, 8, 8), depth=3, context=0, coupling="affine-half"):
    torch.manual_seed(0)
    model = longflow.build("glow", shape, depth=depth, width=8, memory=memory, context=context, coupling=coupling)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.03 * torch.randn_like(p)
    return model


def gradients(model, x, context=None, way="log_prob"):
    inputs = [x.clone().requires_grad_(), *([] if context is None else [context.clone().requires_grad_()])]
    weights = torch.linspace(0, 1, len(x)).to(x)
    if way == "log_prob":
        loss = (weights * model.log_prob(*inputs)).sum()
    else:
        y, log_det = model.bijection.inverse(*inputs)
        loss = (weights * (y.square().flatten(1).sum(1) + log_det)).sum()
    return torch.autograd.grad(loss, [*inputs, *model.parameters()], allow_unused=True)


@pytest.mark.parametrize("memory", ["checkpoint", "reversible"])
@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("way", ["log_prob", "inverse"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (5,)])
@pytest.mark.parametrize("coupling", ["affine-half", "additive"])
def test_gradients_are_the_plain_ones(memory, context, way, shape, coupling):
    torch.manual_seed(1)
    x = torch.randn(4, *shape, dtype=torch.float64)
    c = torch.randn(4, context, dtype=torch.float64) if context else None
    plain = gradients(glow("full", shape, context=context, coupling=coupling).double(), x, c, way)
    saved = gradients(glow(memory, shape, context=context, coupling=coupling).double(), x, c, way)
    for a, b in zip(plain, saved, strict=True):
        a, b = (torch.zeros(1).double() if g is None else g for g in (a, b))
        close(b / (1 + a.abs().max()), a / (1 + a.abs().max()), 1e-8)


@pytest.mark.parametrize("memory", ["checkpoint", "reversible"])
def test_values_and_state_are_the_plain_ones(memory):
    x = torch.randn(3, 1, 8, 8)
    plain, saved = glow("full"), glow(memory)
    close(plain.log_prob(x), saved.log_prob(x), 1e-4)
    assert plain.state_dict().keys() == saved.state_dict().keys()


def kept(model, x):
    """Bytes that autograd keeps between the passes."""
    seen = {}

    def pack(t):
        seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = model.log_prob(x).sum()
    loss.backward()
    return sum(size for pointer, size in seen.items() if pointer not in own)


def test_reversible_memory_does_not_grow_with_depth():
    x = torch.randn(8, 1, 8, 8)
    use = {(m, d): kept(glow(m, depth=d), x) for m in ("full", "checkpoint", "reversible") for d in (2, 8)}
    assert use["full", 8] > 3 * use["full", 2]
    assert use["reversible", 8] < 1.1 * use["reversible", 2]
    assert use["reversible", 8] < use["checkpoint", 8] < use["full", 8] / 4


def test_the_monitor_warns_where_the_way_back_drifts():
    chain = Chain(*(Learned(Scale(), (2,)) for _ in range(2)), memory="reversible")
    with torch.no_grad():
        chain.parts[0].theta.fill_(-110.0)
        chain.parts[1].theta.fill_(100.0)
    with pytest.warns(UserWarning, match="reversible memory"):
        chain(torch.randn(3, 2, requires_grad=True))[0].sum().backward()
    wide = Chain(*chain.parts, memory="reversible", trunk="float64")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wide(torch.randn(3, 2, requires_grad=True))[0].sum().backward()
        chain.double()(torch.randn(3, 2, dtype=torch.float64, requires_grad=True))[0].sum().backward()


def trained(memory, coupling):
    """A Glow in float32, trained a little on pictures of waves, and the pictures."""
    torch.manual_seed(0)
    x = torch.rand(64, 3, 8, 8).cumsum(2).sin() + 0.05 * torch.rand(64, 3, 8, 8)
    flow = longflow.build("glow", (3, 8, 8), depth=8, width=16, coupling=coupling, memory=memory)
    adapt(flow, x)
    optimiser = torch.optim.Adam(flow.parameters(), 3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        (-flow.log_prob(x).mean()).backward()
        optimiser.step()
    return flow, x


@pytest.mark.parametrize("coupling", ["affine", "additive"])
def test_gradients_are_the_plain_ones_in_float32_after_training(coupling):
    flow, x = trained("full", coupling)
    found = {}
    for memory in ("full", "checkpoint", "reversible"):
        model = longflow.build("glow", (3, 8, 8), depth=8, width=16, coupling=coupling, memory=memory)
        model.load_state_dict(flow.state_dict())
        found[memory] = torch.cat(
            [g.flatten() for g in torch.autograd.grad(-model.log_prob(x).mean(), model.parameters())]
        )
    for memory in ("checkpoint", "reversible"):
        assert (found[memory] - found["full"]).norm() <= 1e-4 * found["full"].norm()


def test_frozen_parameters_and_maps_without_gradient_pass():
    chain = Chain(Learned(Affine(), (2,)), Logit(0.1), Learned(Affine(), (2,)), memory="reversible").double()
    chain.parts[0].theta.requires_grad_(False)
    x = torch.rand(3, 2, dtype=torch.float64)
    chain(x)[1].sum().backward()
    assert chain.parts[0].theta.grad is None
    assert chain.parts[2].theta.grad is not None


def test_reversible_refuses_what_is_not_exact():
    class Rough(Scale):
        exact = False

    with pytest.raises(UsageError, match="inverse is exact"):
        Chain(Learned(Rough(), (2,)), Rough(), memory="reversible")
