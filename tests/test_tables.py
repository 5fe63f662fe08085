"""The models of tables: maf, iaf and nsf, in what the suite of the catalogue does not ask."""

import pytest
import torch
from test_models import stirred
from tolerances import close
from torch.func import jacrev

import longflow
from longflow.bijections import PLULinear, adapt
from longflow.bijections.linear import random_permutation
from longflow.errors import UsageError

SMALL = {
    "maf": {"layers": 2, "hidden": 16, "depth": 1},
    "iaf": {"layers": 2, "hidden": 16, "depth": 1},
    "nsf": {"layers": 2, "hidden": 16, "blocks": 1, "bins": 4, "kind": "autoregressive"},
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("context", [0, 2])
def test_one_feature_is_a_density_too(name, context):
    flow = stirred(longflow.build(name, shape=(1,), context=context, **SMALL[name])).double().eval()
    x = torch.linspace(-40, 40, 20001, dtype=torch.float64)[:, None]
    c = torch.tensor([[0.5, -1.0]]).double().expand(len(x), 2) if context else None
    assert flow.log_prob(x, c).exp().sum().item() * 80 / 20000 == pytest.approx(1, abs=1e-5)
    close(flow.decode(flow.encode(x, c), c), x)


@pytest.mark.parametrize("name", ["maf", "iaf", "nsf"])
@pytest.mark.parametrize("mixing", ["reverse", "shuffle", "lu", "rotation"])
def test_every_mixing_starts_the_flow_as_an_orthogonal_map(name, mixing):
    """But for IAF, whose scale starts at σ(2), softly clipped, the log-determinant is 0: nothing is lost or doubled."""
    flow = longflow.build(name, shape=(5,), mixing=mixing, **SMALL[name]).double()
    x = 0.1 * torch.randn(3, 5).double()
    z, log_det = flow.bijection(x)
    scale = torch.nn.functional.logsigmoid(torch.tensor(2.0).double())
    start = -5 * 2 * scale / (1 - scale / 6.9) if name == "iaf" else 0 * scale
    close(log_det, start.expand(3), 1e-6)
    close(z.norm(dim=1), x.norm(dim=1) * (start / 5).exp(), 1e-6)


@pytest.mark.parametrize("name", ["maf", "iaf", "naf"])
def test_reversed_layers_let_every_number_see_every_other(name):
    """One layer is triangular; without mixing two would be, too."""
    flow = stirred(longflow.build(name, shape=(4,), layers=2, hidden=16, depth=1)).double().eval()
    x = torch.randn(4, dtype=torch.float64)
    jacobian = jacrev(lambda row: flow.encode(row[None])[0])(x)
    assert (jacobian.triu(1)[:-1].abs().sum(1) > 1e-6).all()
    assert (jacobian.tril(-1)[1:].abs().sum(1) > 1e-6).all()


def test_an_inverse_layer_is_finite_far_from_the_data():
    """A scale that the network drives towards 0 would make its inverse overflow, and log p no number."""
    flow = longflow.build("iaf", shape=(2,), **SMALL["iaf"])
    for p in flow.parameters():
        torch.nn.init.normal_(p)
    far = 10.0 ** torch.arange(0, 7)[:, None] * torch.tensor([[1.0, -1.0]])
    assert flow.double().log_prob(far.double()).isfinite().all()


@pytest.mark.parametrize("kind", ["coupling", "autoregressive"])
def test_splines_move_every_number_and_leave_the_tails(kind):
    flow = longflow.build("nsf", shape=(4,), kind=kind, layers=1, hidden=16, blocks=1, bins=4, mixing="reverse")
    stirred(flow).double()
    inside = 0.5 * torch.randn(1, 4).double()
    slopes = jacrev(lambda row: flow.encode(row[None])[0])(inside[0]).diagonal()
    assert ((slopes - 1).abs() > 1e-4).all()
    far = torch.full((1, 4), 5.0).double()
    close(flow.encode(far), far)


def test_a_spline_flow_takes_initialisation_from_data():
    flow = longflow.build("nsf", shape=(4,), layers=2, hidden=8, blocks=1, mixing="reverse")
    x = 5 + torch.randn(64, 4)
    adapt(flow, x)
    close(flow.encode(x), x.flip(1), 1e-5)


def test_a_normalised_flow_starts_from_data():
    for name in ("maf", "iaf"):
        flow = longflow.build(name, shape=(4,), **SMALL[name])
        x = 300 + 20 * torch.randn(256, 4)
        adapt(flow, x)
        assert flow.encode(x).mean(0).abs().max() < 0.1


def test_lu_starts_as_a_permutation():
    layer = PLULinear(7, start=random_permutation).double()
    w = layer.matrix()
    close(w @ w.T, torch.eye(7).double())
    assert set(w.flatten().tolist()) == {0.0, 1.0}
    assert not layer.lower.any()


def test_the_paper_s_spline_flows_of_power_have_their_sizes():
    """3.0 and 2.8 million by arithmetic from 10 layers, 256 units, 2 blocks, 8 bins, as counted for nflows."""
    for preset, millions in (("power", 2.8), ("power-autoregressive", 3.0)):
        flow = longflow.build("nsf", shape=(6,), preset=preset)
        assert sum(p.numel() for p in flow.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize(
    ("name", "shape", "options", "says"),
    [
        ("maf", (2, 3), {}, "events of shape"),
        ("maf", (3,), {"layers": 0}, "layers >= 1"),
        ("maf", (3,), {"hidden": 0}, "hidden >= 1"),
        ("maf", (3,), {"dropout": 1.0}, "dropout < 1"),
        ("maf", (3,), {"net": "resmode"}, "did you mean 'resmade'"),
        ("maf", (3,), {"activation": "rely"}, "did you mean 'relu'"),
        ("maf", (3,), {"mixing": "shufle"}, "did you mean 'shuffle'"),
        ("maf", (3,), {"scale": "clip"}, "did you mean 'clipped'"),
        ("iaf", (3,), {"context": -1}, "context >= 0"),
        ("nsf", (1,), {}, "kind 'autoregressive'"),
        ("nsf", (3,), {"kind": "couple"}, "did you mean 'coupling'"),
        ("nsf", (3,), {"bound": 0.0}, "0 < bound"),
        ("nsf", (3,), {"bins": 0}, "bins >= 1"),
        ("nsf", (3,), {"slope": 2.0}, "slope < 1"),
    ],
)
def test_bad_input_is_told(name, shape, options, says):
    with pytest.raises(UsageError, match=says):
        longflow.build(name, shape=shape, **options)


@pytest.mark.parametrize("name", ["realnvp", "glow"])
def test_couplings_of_vectors_take_a_context(name):
    options = {"realnvp": {"width": 8, "blocks": 1}, "glow": {"width": 8, "depth": 2}}[name]
    flow = stirred(longflow.build(name, shape=(3,), context=2, **options)).double()
    x, c = torch.randn(5, 3).double(), torch.randn(5, 2).double()
    jacobians = torch.stack([jacrev(lambda r, k=k: flow.encode(r[None], k[None])[0])(r) for r, k in zip(x, c)])  # noqa: B905
    expected = flow.base.log_prob(flow.encode(x, c)) + torch.linalg.slogdet(jacobians).logabsdet
    close(flow.log_prob(x, c), expected)
    assert (flow.log_prob(x, c) - flow.log_prob(x, -c)).abs().min() > 0
