"""Masked networks and the autoregressive combinator, against the autograd Jacobian and the inverse in D passes."""

import pytest
import torch
from test_bijections import row_jacobian
from tolerances import close
from torch import nn
from torch.func import jacrev
from torch.utils.flop_counter import FlopCounterMode

from longflow.bijections import Affine, Autoregressive, Shift
from longflow.errors import UsageError
from longflow.nets import MADE, ResidualMLP, ResMADE
from longflow.nets.made import spread

FORMS = {
    "plain": lambda d, k=2, **o: MADE(d, k, **{"hidden": 24, "depth": 3, "activation": nn.Tanh, **o}),
    "residual": lambda d, k=2, **o: ResMADE(d, k, **{"hidden": 24, "blocks": 2, "activation": nn.Tanh, **o}),
}


@pytest.fixture(params=FORMS)
def form(request):
    torch.manual_seed(0)
    return FORMS[request.param]


def scrambled(model, std=0.2):
    """Set every parameter at random, masked entries included."""
    for p in model.parameters():
        nn.init.normal_(p, std=std)
    return model.double()


class Opaque(nn.Module):
    """A conditioner that cannot be walked."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, context=None):
        return self.net(x) if context is None else self.net(x, context)


def by_passes(layer, z, context=None):
    """The inverse that needs no more than the definition: after pass n, the first n features are right."""
    x = torch.zeros_like(z)
    for _ in range(z.shape[1]):
        x, log_det = layer.transform.inverse(z, layer.conditioner(x, context))
    return x, log_det


@pytest.mark.parametrize("features", [2, 3, 7])
@pytest.mark.parametrize("context", [0, 2])
def test_each_feature_sees_all_before_it_and_no_other(form, features, context):
    net = scrambled(form(features, context=context))
    x, c = torch.randn(features).double(), torch.randn(1, context).double() if context else None
    jacobian = jacrev(lambda row: net(row[None], c)[0])(x).reshape(2, features, features)
    before = torch.ones(features, features).tril(-1).bool()
    assert (jacobian[:, ~before] == 0).all()
    assert (jacobian[:, before].abs() > 1e-8).all()


@pytest.mark.parametrize("hidden", [1, 2, 4])
def test_fewer_units_than_features_keep_the_order_and_the_last_feature_sees_all(form, hidden):
    net = scrambled(form(6, hidden=hidden))
    jacobian = jacrev(lambda row: net(row[None])[0])(torch.randn(6).double()).reshape(2, 6, 6)
    assert (jacobian[:, torch.ones(6, 6).triu().bool()] == 0).all()
    assert (jacobian[:, 5, :5] != 0).all()


def test_context_reaches_the_numbers_of_every_feature(form):
    net = scrambled(form(4, context=3))
    jacobian = jacrev(lambda c: net(torch.ones(1, 4).double(), c[None])[0])(torch.randn(3).double())
    assert (jacobian.abs() > 1e-8).all()
    with pytest.raises(UsageError, match="context of 3 features"):
        net(torch.ones(1, 4).double())


def test_degrees_are_shared_out_evenly():
    assert spread(1, 3, 6) == [1, 1, 2, 2, 3, 3]
    assert spread(0, 3, 4) == [0, 1, 2, 3]
    assert spread(1, 9, 3) == [3, 6, 9]
    assert set(spread(1, 62, 256)) == set(range(1, 63))


def test_networks_start_at_zero(form):
    assert not form(5)(torch.randn(3, 5)).any()
    assert not form(5, context=2)(torch.randn(3, 5), torch.randn(3, 2)).any()
    assert not ResidualMLP(3, 4, hidden=8, blocks=2, context=2)(torch.randn(3, 3), torch.randn(3, 2)).any()


def test_one_feature_has_the_parameters_of_its_context(form):
    layer = Autoregressive(Affine(), scrambled(form(1, context=2)))
    x, c = torch.randn(5, 1).double(), torch.randn(5, 2).double()
    z, log_det = layer(x, c)
    close(log_det, torch.linalg.slogdet(row_jacobian(layer, x, c)).logabsdet)
    close(layer.inverse(z, c)[0], x)
    assert log_det.std() > 1e-3
    alone = scrambled(form(1))
    close(alone(x), alone(-x))


@pytest.mark.parametrize("features", [1, 2, 9])
@pytest.mark.parametrize("context", [0, 2])
def test_walked_and_at_once_the_numbers_are_the_same(form, features, context):
    net = scrambled(form(features, context=context))
    x = torch.randn(4, features).double()
    c = torch.randn(4, context).double() if context else None
    numbers = []

    def answer(d, theta):
        numbers.append(theta)
        return x[:, d : d + 1]

    assert torch.equal(net.unroll(answer, x[:, :0], c), x)
    close(torch.stack(numbers, 2).flatten(1), net(x, c))


@pytest.mark.parametrize("wrap", [Opaque, nn.Identity], ids=["passes", "walk"])
@pytest.mark.parametrize("context", [0, 2])
def test_inverse_is_that_of_d_passes(form, context, wrap):
    net = scrambled(form(8, context=context))
    layer = Autoregressive(Affine(), net if wrap is nn.Identity else wrap(net))
    z = torch.randn(6, 8).double()
    c = torch.randn(6, context).double() if context else None
    expected = by_passes(layer, z, c)
    for found in (layer.inverse(z, c), torch.no_grad()(layer.inverse)(z, c)):
        close(found[0], expected[0])
        close(found[1], expected[1])


@pytest.mark.parametrize("most", [1, 3, 10])
@pytest.mark.parametrize("context", [0, 2])
def test_passes_of_all_features_end_where_the_walk_does(form, context, most):
    """Rows are done after as many passes as their dependences are long, at most one more than features."""
    layer = Autoregressive(Affine(), scrambled(form(9, context=context)))
    z = torch.randn(40, 9).double() * torch.linspace(0, 1, 40).double()[:, None]
    c = torch.randn(40, context).double() if context else None
    x, log_det, rows = layer.sweep(z, c, most)
    done = torch.ones(40).bool().index_fill(0, rows, False)
    expected = by_passes(layer, z, c)
    close(x[done], expected[0][done])
    close(log_det[done], expected[1][done])
    assert (len(rows) == 0) == (most == 10)
    assert len(layer.sweep(z, c, 9)[2]) == 0
    assert not x.requires_grad


def test_a_new_layer_needs_one_pass_and_a_row_alone_is_as_among_others(form):
    assert len(Autoregressive(Affine(), form(50)).sweep(torch.randn(7, 50), None, 1)[2]) == 0
    layer = Autoregressive(Affine(), scrambled(form(12)))
    z = torch.randn(9, 12).double()
    assert layer._passes_worth(z) >= 10
    assert Autoregressive(Affine(), form(12, hidden=256))._passes_worth(z.repeat(1000, 1)) == 0
    with torch.no_grad():
        close(layer.inverse(z[4:5])[0], layer.inverse(z)[0][4:5])
        assert layer.inverse(z[:0])[0].shape == (0, 12)


def test_rows_that_passes_leave_are_walked(form, monkeypatch):
    layer = Autoregressive(Affine(), scrambled(form(9)))
    for name, p in layer.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(p)
    z = torch.randn(40, 9).double() * torch.logspace(-16, 0, 40).double()[:, None]
    some = next(n for n in range(1, 9) if 0 < len(layer.sweep(z, None, n)[2]) < 40)
    monkeypatch.setattr(layer, "_passes_worth", lambda z: some)
    expected = by_passes(layer, z)
    with torch.no_grad():
        found = layer.inverse(z)
    close(found[0], expected[0])
    close(found[1], expected[1])


def test_a_row_that_is_not_a_number_spoils_no_other(form):
    layer = Autoregressive(Affine(), scrambled(form(6)))
    z = torch.randn(4, 6).double()
    expected = layer.inverse(z)[0]
    z[1, 2] = torch.nan
    with torch.no_grad():
        found = layer.inverse(z)[0]
    close(found[[0, 2, 3]], expected[[0, 2, 3]])
    assert found[1].isnan().any()


def test_gradients_through_the_inverse_are_those_of_d_passes(form):
    layer = Autoregressive(Affine(), scrambled(form(6)))
    z = torch.randn(4, 6).double()
    grads = []
    for inverse in (layer.inverse, lambda z: by_passes(layer, z)):
        x, log_det = inverse(z)
        grads.append(torch.autograd.grad((x.sin() * x).sum() + log_det.sum(), list(layer.parameters())))
    for ours, theirs in zip(*grads, strict=True):
        close(ours, theirs, 1e-8)


def test_a_walk_uses_each_weight_once(form):
    """D passes would be D times this: the walk's arithmetic is at most that of one dense pass."""
    net = form(16, hidden=64)
    with FlopCounterMode(display=False) as once:
        net(torch.randn(8, 16))
    with FlopCounterMode(display=False) as walked:
        net.unroll(lambda d, theta: theta[:, :1], torch.zeros(8, 0))
    assert 0.4 * once.get_total_flops() < walked.get_total_flops() < once.get_total_flops()


def test_a_wild_guess_on_the_way_spoils_nothing():
    """Guesses of later features may overflow, and a masked infinity is no nought, but not a number."""
    net = nn.Linear(3, 6).double()
    for p in net.parameters():
        nn.init.zeros_(p)
    with torch.no_grad():
        net.weight[1, 0], net.weight[5, 1], net.bias[3] = -1000.0, 1.0, 5.0
    layer = Autoregressive(Affine(), Opaque(net))
    x = torch.tensor([[0.0, 1.0, 2.0]]).double()
    close(layer.inverse(layer(x)[0])[0], x)


def test_dropout_acts_in_training_only(form):
    net = scrambled(form(6, dropout=0.5))
    x = torch.randn(3, 6).double()
    assert not torch.equal(net(x), net(x))
    assert torch.equal(net.eval()(x), net(x))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: MADE(0, 2, hidden=4, depth=1), "features >= 1"),
        (lambda: MADE(3, 2, hidden=4, depth=0), "depth >= 1"),
        (lambda: ResMADE(3, 2, hidden=0, blocks=1), "hidden >= 1"),
        (lambda: Autoregressive(Shift(), MADE(3, 2, hidden=4, depth=1))(torch.zeros(2, 3)), "context of 3 features"),
    ],
)
def test_bad_input_is_told(make, says):
    with pytest.raises(UsageError, match=says):
        make()


def test_a_residual_conditioner_sees_input_and_context_and_gates():
    net = scrambled(ResidualMLP(3, 4, hidden=16, blocks=2, context=2, activation=nn.Tanh))
    x, c = torch.randn(1, 3).double(), torch.randn(1, 2).double()
    for argument in (0, 1):
        assert (jacrev(net, argument)(x, c).abs() > 1e-8).all()
    closed = net(x, c)
    for block in net.blocks:
        nn.init.constant_(block.gate.bias, -60.0)
        nn.init.zeros_(block.gate.weight)
    close(net(x, c), net.last(net.first(torch.cat((x, c), 1))))
    assert (net(x, c) - closed).abs().max() > 1e-3
