"""Continuous flows: the solver, the trace, flow matching; against closed forms, enumerated probes and torchdiffeq."""

import copy
import itertools
import math
import sys

import pytest
import torch
from doors import answer, refused
from tolerances import NORMALISED, SIGMAS, close
from torch import nn
from torchdiffeq import odeint

import longflow
from longflow.bijections import Continuous, Solver, Standardise, Unconstrain
from longflow.bijections.solver import TABLEAUS
from longflow.distributions import Dequantised, MixedDequantised
from longflow.errors import IntegrationError, TrainingDivergedError, UsageError
from longflow.families import FlowMatching, MatchedFlow
from longflow.families.matching import _times
from longflow.models import assemble
from longflow.nets import ConcatSquash
from longflow.training import Recipe, State, train
from longflow.values import values_only

DOUBLE = torch.float64


class Linear(nn.Module):
    """v = cos(t) A x + b: z = exp(sin(1) A) x where b is nought, and the trace is cos(t) tr A."""

    def __init__(self, dims, b=0.0):
        super().__init__()
        self.a = nn.Parameter(0.5 * torch.randn(dims, dims, dtype=DOUBLE))
        self.b = b

    def forward(self, x, t, context=None):
        return t.cos()[:, None] * (x @ self.a.T) + self.b


class Optimal(nn.Module):
    """E[ε - y | (1 - t) y + t ε = x] for y of N(0, s²) and ε of N(0, 1), plus a x."""

    def __init__(self, s):
        super().__init__()
        self.s, self.a = s, nn.Parameter(torch.zeros((), dtype=DOUBLE))

    def forward(self, x, t, context=None):
        t = t[:, None]
        return ((t - (1 - t) * self.s**2) / ((1 - t) ** 2 * self.s**2 + t**2) + self.a) * x


def curved(dims, **options):
    field = ConcatSquash(dims, width=8, depth=2, **options).double()
    for p in field.parameters():
        nn.init.normal_(p, std=0.7)
    return field


def rademachers(dims, rows):
    """Every probe of ±1, one after the other, the same for all rows."""
    return iter(
        [torch.tensor(signs, dtype=DOUBLE).expand(rows, -1) for signs in itertools.product((-1, 1), repeat=dims)]
    )


def by_probes(field, dims, probe, probes=1, steps=4):
    return Continuous(field, dims, evaluation=Solver(steps=steps), probes=probes, probe=probe, exact_dims=0).eval()


@pytest.mark.parametrize(
    "how", [Solver(steps=48), Solver("dopri5", tolerance=1e-11), Solver("dopri8", tolerance=1e-11)]
)
def test_a_linear_field_has_the_flow_and_the_log_det_of_its_closed_form(how):
    field = Linear(3)
    flow = Continuous(field, 3, evaluation=how).eval()
    x = torch.randn(5, 3, dtype=DOUBLE)
    z, log_det = flow(x)
    close(z, x @ torch.linalg.matrix_exp(math.sin(1) * field.a).T)
    close(log_det, (math.sin(1) * field.a.trace()).expand(5))
    back, inverse = flow.inverse(z)
    close(back, x)
    close(inverse, -log_det)


@pytest.mark.parametrize("method", TABLEAUS)
def test_halving_the_steps_divides_the_error_by_two_to_the_order(method):
    field, x = curved(2), torch.randn(6, 2, dtype=DOUBLE)

    def solved(how):
        flow = Continuous(field, 2, evaluation=how).eval()
        z, log_det = flow(x)
        return torch.cat((z, log_det[:, None], flow.inverse(z)[0]), 1)

    with torch.no_grad():
        exact = torch.cat((solved(Solver("rk4", 128))[:, :3], x), 1)
        errors = [(solved(Solver(method, steps)) - exact).abs().amax(0) for steps in (8, 16)]
    orders = (errors[0] / errors[1]).log2()
    assert (orders > TABLEAUS[method].order - 0.4).all()
    assert (orders[:3] < TABLEAUS[method].order + 1.2).all()


@pytest.mark.parametrize("method", TABLEAUS)
def test_equal_steps_are_those_of_torchdiffeq(method):
    field, x = curved(3), torch.randn(4, 3, dtype=DOUBLE)
    theirs = odeint(
        lambda t, y: field(y, t.expand(4)),
        x,
        torch.tensor([0.0, 1.0], dtype=DOUBLE),
        method=method,
        options={"step_size": 0.2},
    )[-1]
    close(Continuous(field, 3, evaluation=Solver(method, 5)).eval()(x)[0], theirs, 1e-12)


def test_steps_that_are_chosen_hold_to_their_tolerance_and_so_do_the_rows_that_meet():
    field, x = curved(3), 2 * torch.randn(6, 3, dtype=DOUBLE)
    flow = Continuous(field, 3, training=Solver("dopri5"), evaluation=Solver("dopri5", tolerance=1e-6)).eval()
    with torch.no_grad():
        exact = Continuous(field, 3, evaluation=Solver(steps=128)).eval()(x)
        together, alone = flow(x), flow(x[:1])
    for a, b, c in zip(together, exact, alone, strict=True):
        close(a, b, 1e-4)
        close(a[:1], c, 1e-4)
    assert not torch.equal(together[0][:1], alone[0])
    assert flow(x[:0])[1].shape == (0,)
    assert flow.float()(x.float())[0].dtype == torch.float32
    assert [name for name, _ in flow.trace(x.float())][-1] == "t = 1"


def test_a_field_that_explodes_is_told_by_steps_that_are_chosen():
    class Explosive(nn.Module):
        def forward(self, x, t, context=None):
            return 10 * x.square()

    flow = Continuous(Explosive(), 1, evaluation=Solver("dopri5")).eval()
    with pytest.raises(IntegrationError, match="cannot reach the tolerance 1e-05"):
        flow(torch.ones(1, 1, dtype=DOUBLE))


@pytest.mark.parametrize("dims", [2, 3])
def test_the_mean_over_every_probe_is_the_exact_log_det(dims):
    field, x = curved(dims), torch.randn(5, dims, dtype=DOUBLE)
    exact = Continuous(field, dims, evaluation=Solver(steps=4)).eval()(x)
    probes = rademachers(dims, 5)
    z, log_det = by_probes(field, dims, lambda like: next(probes), probes=2**dims)(x)
    close(z, exact[0])
    close(log_det, exact[1])
    axes = iter(math.sqrt(dims) * torch.eye(dims, dtype=DOUBLE))
    close(by_probes(field, dims, lambda like: next(axes).expand_as(like), probes=dims)(x)[1], exact[1])


def test_one_probe_is_drawn_once_and_stays_the_same_along_the_way():
    """Drawn anew at each evaluation it would make the equation rough (torchdiffeq's issue 120)."""
    field, x, drawn = Linear(3), torch.randn(5, 3, dtype=DOUBLE), []

    def probe(like):
        drawn.append(torch.randn_like(like))
        return drawn[-1]

    flow = by_probes(field, 3, probe, steps=48)
    (_, log_det), (e,) = flow(x), drawn
    close(log_det, math.sin(1) * torch.einsum("bi,ij,bj->b", e, field.a, e))
    flow.inverse(x)
    assert len(drawn) == 2


def test_traces_are_exact_in_evaluation_and_of_few_numbers_in_training():
    x = torch.randn(5, 4, dtype=DOUBLE)
    flow = Continuous(curved(4), 4, exact_dims=4)
    assert not torch.equal(flow(x)[1], flow(x)[1])
    assert torch.equal(flow.eval()(x)[1], flow(x)[1])
    assert not flow.estimates
    small = Continuous(curved(3), 3)
    assert torch.equal(small(x[:, :3])[1], small(x[:, :3])[1])
    wide = Continuous(curved(4), 4, exact_dims=3).eval()
    assert wide.estimates
    with values_only():
        assert not wide(x)[1].any()
    with torch.inference_mode():
        inner = flow(x)
    close(inner[1], flow(x)[1].detach())


def test_gradients_are_those_of_the_values():
    """Through every step, with the probe fixed: along any direction, that of a finite difference."""
    field, x = curved(4), torch.randn(5, 4, dtype=DOUBLE)
    e = torch.randn(5, 4, dtype=DOUBLE)
    flow = by_probes(field, 4, lambda like: e, steps=3)

    def loss():
        z, log_det = flow(x)
        return (z.square().sum(1) / 2 - log_det).mean()

    parameters = list(field.parameters())
    directions = [torch.randn_like(p) for p in parameters]
    slope = sum((g * d).sum() for g, d in zip(torch.autograd.grad(loss(), parameters), directions, strict=True))
    ends = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p += step * d
            ends.append(loss())
    close(slope, (ends[0] - ends[1]) / 2e-5, 1e-6)


def matched(field, dims, steps=64):
    return MatchedFlow(Continuous(field, dims, evaluation=Solver(steps=steps)), (dims,)).double().eval()


def test_the_field_that_flow_matching_seeks_makes_the_density_of_the_data():
    """Time runs from data to noise: with E[ε - y | y_t] in closed form the flow's density is that of the data."""
    flow, x = matched(Optimal(0.5), 2), torch.linspace(-1, 1, 9, dtype=DOUBLE).repeat(2, 1).T
    close(flow.log_prob(x), torch.distributions.Normal(0, 0.5).log_prob(x).sum(1), 1e-7)


def test_the_objective_is_least_at_that_field():
    """The mean gradient at the optimum is nought; away from it, it is 2a E[y_t²]/D."""
    flow, slopes = matched(Optimal(0.5), 1), {0.0: [], 0.3: []}
    for a, found in slopes.items():
        flow.continuous.field.a.data.fill_(a)
        for _ in range(200):
            ((_, loss),) = FlowMatching()(flow, 0.5 * torch.randn(128, 1, dtype=DOUBLE), None)
            found.append(torch.autograd.grad(loss, flow.continuous.field.a)[0])
    for a, expected in ((0.0, 0.0), (0.3, 0.6 * (0.25 + 1) / 3)):
        found = torch.stack(slopes[a])
        assert abs(found.mean().item() - expected) < SIGMAS * found.std().item() / math.sqrt(len(found))


def test_the_objective_sees_what_the_field_sees():
    flow, x = matched(curved(3), 3), torch.randn(16, 3, dtype=DOUBLE)

    def loss(rows):
        torch.manual_seed(3)
        ((part, value),) = FlowMatching()(flow, rows, None)
        assert part == ""
        return value

    plain = loss(x)
    flow.preprocess(Standardise(5.0, 2.0).double())
    flow.preprocess(Standardise(-1.0, 0.5).double())
    close(loss((2 * x + 5) * 0.5 - 1), plain)
    assert loss(x) != plain


def test_levels_are_dequantised_before_they_are_matched():
    flow = Dequantised(matched(curved(3), 3), 4)
    x = torch.randint(4, (16, 3))
    losses = [next(FlowMatching()(flow, x, None))[1] for _ in range(2)]
    assert losses[0] != losses[1]


def test_only_whole_columns_are_dequantised_before_they_are_matched():
    """What the field sees is on the way from the density's own draw in bins to the noise."""
    flow = matched(curved(2), 2)
    seen = []
    flow.velocity = lambda y, t, context: seen.append((y, t)) or torch.zeros_like(y)
    model = MixedDequantised(flow, low=[0, -math.inf], high=[9, math.inf], whole=[True, False])
    x = torch.zeros(2000, 2)
    x[:, 1] = 5.0
    torch.manual_seed(0)
    next(FlowMatching()(model, x, None))
    torch.manual_seed(0)
    y, noise = model.spread(x), torch.randn(2000, 2, dtype=DOUBLE)
    ((found, t),) = seen
    assert found.dtype == DOUBLE
    close(found, (1 - t[:, None]) * y + t[:, None] * noise)
    assert (y[:, 1] == 5.0).all()


@pytest.mark.parametrize("coupling", ["independent", "optimal"])
def test_rows_outside_a_support_stop_flow_matching_as_they_stop_likelihood(coupling):
    flow = matched(curved(2), 2)
    flow.preprocess(Unconstrain([0.0, -math.inf], [1.0, math.inf]).double())
    x = torch.tensor([[0.5, 0.0], [0.2, 9.0], [0.0, 1.0]], dtype=DOUBLE)
    assert next(FlowMatching(coupling)(flow, x, None))[1].isfinite()
    x[1, 0] = 1.5
    assert flow.log_prob(x)[1] == -math.inf
    assert next(FlowMatching(coupling)(flow, x, None))[1] == math.inf
    recipe = Recipe(batch=3)
    steps = train(
        State(flow, FlowMatching(coupling), recipe), FlowMatching(coupling), lambda step: (x, None), recipe, 1, 1
    )
    with pytest.raises(TrainingDivergedError, match="loss inf"):
        next(steps)


def test_the_optimal_coupling_has_the_shortest_paths():
    y, noise = torch.randn(5, 2, dtype=DOUBLE), torch.randn(5, 2, dtype=DOUBLE)
    paired = longflow.families.matching.optimal(y, noise)
    lengths = [(y - noise[list(order)]).square().sum() for order in itertools.permutations(range(5))]
    close((y - paired).square().sum(), torch.stack(lengths).min())
    assert sorted(map(tuple, paired.tolist())) == sorted(map(tuple, noise.tolist()))
    with pytest.raises(UsageError, match="expects no context"):
        next(FlowMatching("optimal")(matched(curved(2), 2), y, y))


def test_times_are_one_in_each_share_of_the_way():
    t = _times(torch.zeros(64, 2))
    assert torch.equal((64 * t).long().sort().values, torch.arange(64))
    assert _times(torch.zeros(0, 2)).shape == (0,)


def test_times_of_each_row_are_uniform():
    t = torch.stack([_times(torch.zeros(4, 2, dtype=DOUBLE)) for _ in range(1000)])
    assert ((t >= 0) & (t < 1)).all()
    assert ((t.mean(0) - 0.5).abs() < SIGMAS / math.sqrt(12 * 1000)).all()
    assert ((t.square().mean(0) - 1 / 3).abs() < SIGMAS * math.sqrt(4 / 45 / 1000)).all()
    close(t.sort(1).values.diff(dim=1), torch.full((1000, 3), 0.25, dtype=DOUBLE))


def test_flow_matching_learns_a_density_that_is_one():
    """A mixture of two normals, whose entropy is known; the density integrates to one."""
    torch.manual_seed(0)
    x = 0.3 * torch.randn(4000, 1) + (2.0 * torch.randint(2, (4000, 1)) - 1)
    flow = longflow.build("fm", shape=(1,), width=32, depth=2, evaluation_steps=24)
    optimiser = torch.optim.Adam(flow.parameters(), 3e-3)
    for step in range(400):
        optimiser.zero_grad()
        ((_, loss),) = FlowMatching()(flow, x[torch.randint(4000, (256,))], None, step / 400)
        loss.backward()
        optimiser.step()
    flow.eval().double()
    axis = torch.linspace(-5, 5, 2001, dtype=DOUBLE)[:, None]
    with torch.no_grad():
        log_prob = flow.log_prob(axis)
        nats = flow.log_prob(x.double()).mean().item()
    assert log_prob.exp().sum().item() * 0.005 == pytest.approx(1, abs=NORMALISED)
    parts = torch.distributions.Normal(torch.tensor([-1.0, 1.0]).double(), 0.3)
    best = (parts.log_prob(x.double()).logsumexp(1) - math.log(2)).mean().item()
    assert best - 0.1 < nats < best + 0.02


def test_flow_matching_sees_through_an_embedded_context_and_units():
    flow = longflow.build("fm", shape=(2,), width=8, depth=1, context=3)
    for p in flow.parameters():
        nn.init.normal_(p, std=0.5)
    plain, network = copy.deepcopy(flow), nn.Linear(4, 3)
    flow.embed(network, (4,))
    flow.preprocess(Standardise(1.0, 2.0))
    x, c = torch.randn(6, 2), torch.randn(6, 4)
    losses = []
    for model, rows, given in ((flow, x, c), (plain, (x - 1) / 2, network(c))):
        torch.manual_seed(1)
        losses.extend(loss for _, loss in FlowMatching()(model, rows, given))
    close(losses[0], losses[1], 1e-6)
    losses[0].backward()
    assert network.weight.grad.abs().sum() > 0
    close(flow.eval().log_prob(x, c), plain.eval().log_prob((x - 1) / 2, network(c)) - 2 * math.log(2), 1e-5)


def test_flow_matching_is_conditional_and_comes_back_from_disk(tmp_path):
    flow = longflow.build("fm", shape=(2,), width=8, depth=1, context=3)
    for p in flow.parameters():
        nn.init.normal_(p, std=0.5)
    x, c = torch.randn(6, 2), torch.randn(6, 3)
    assert (flow.eval().log_prob(x, c) - flow.log_prob(x, -c)).abs().max() > 1e-2
    close(flow.decode(flow.encode(x, c), c), x, 1e-4)
    ((_, loss),) = FlowMatching()(flow, x, c)
    loss.backward()
    assert all(p.grad is not None for p in flow.parameters())
    with pytest.raises(UsageError, match="context"):
        flow.log_prob(x)
    flow.save(tmp_path / "model")
    assert torch.equal(longflow.load(tmp_path / "model").log_prob(x, c), flow.log_prob(x, c))


def test_a_run_of_flow_matching_is_validated_by_its_loss_and_tells_of_its_solver(tmp_path, capsys):
    out = tmp_path / "run"
    small = ["--width", "16", "--depth", "1", "--evaluation-steps", "4", "--steps", "60", "--coupling", "optimal"]
    told = answer(capsys, "train", "fm", "--data", "two-moons", "--out", out, *small, "--batch", "32")
    assert told["likelihood"] == "exact"
    assert longflow.runs.Run(out).config()["objective"] == {"coupling": "optimal"}
    record = longflow.runs.Run(out).metrics()[-1]
    assert {"train_loss", "validation_loss"} <= set(record)
    found = answer(capsys, "evaluate", out, "-n", "50")
    assert found["log_det"] == {"exact": True, "solver": "rk4", "steps": 4, "evaluations": 16}
    assert 0 < found["discretisation"]["max_abs_nats"] < 0.1
    assert found["discretisation"]["n"] == 50


def test_an_estimated_log_det_is_told_with_its_error(tmp_path, capsys):
    out = tmp_path / "run"
    small = ["--width", "8", "--depth", "1", "--solver-steps", "2", "--evaluation-steps", "2", "--exact-dims", "1"]
    answer(capsys, "train", "ffjord", "--data", "two-moons", "--out", out, *small, "--steps", "3", "--batch", "32")
    found = answer(capsys, "evaluate", out, "-n", "50")
    assert found["likelihood"] == "estimate"
    how = found["log_det"]
    assert (how["exact"], how["probe"], how["probes"], how["draws"]) == (False, "rademacher", 1, 4)
    assert how["stderr_of_draws_bits_per_dim"] > 0
    assert how["bias_bound_bits_per_dim"] is None
    checked = answer(capsys, "check", out, "-n", "2")
    assert checked["discretised"]
    assert "steps 0" in refused(capsys, "train", "ffjord", "--solver-steps", "0").replace(">= 1; ", "steps ")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Solver(steps=0), "steps, a whole number >= 1; 0 came"),
        (lambda: Solver(tolerance=0.0), "tolerance > 0; 0.0 came"),
        (lambda: Solver("dopri"), "did you mean 'dopri"),
        (lambda: Continuous(curved(2), 2, probes=0), "probes >= 1"),
        (lambda: Continuous(curved(2), 2, probe="rademachr"), "did you mean 'rademacher'"),
        (lambda: Continuous(curved(2), 2, end=0.0), "end > 0"),
        (lambda: MatchedFlow(Continuous(curved(2), 2, end=2.0), (2,)), "time from 0 to 1"),
        (lambda: FlowMatching("optimum"), "did you mean 'optimal'"),
        (lambda: longflow.build("ffjord", shape=(2,), blocks=0), "blocks >= 1"),
        (lambda: longflow.build("ffjord", shape=(2,), solver="rk5"), "unknown solver 'rk5'"),
        (lambda: longflow.build("fm", shape=(2,), evaluation_steps=0), "evaluation_steps >= 1"),
        (lambda: longflow.build("fm", shape=(2,), tolerance=-1.0), "tolerance > 0"),
    ],
)
def test_bad_input_is_told(make, says):
    with pytest.raises(UsageError, match=says):
        make()


def test_a_missing_torchdiffeq_is_told_where_it_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    x = torch.randn(2, 2, dtype=DOUBLE)
    assert Continuous(curved(2), 2).eval()(x)[0].shape == (2, 2)
    with pytest.raises(UsageError, match="need torchdiffeq, which is not installed"):
        Continuous(curved(2), 2, evaluation=Solver("dopri5")).eval()(x)


@pytest.mark.parametrize("name", ["ffjord", "fm"])
def test_one_number_is_an_event(name):
    config = {"model": name, "options": {"width": 4}, "shape": [1], "preprocess": "standardise", "levels": None}
    flow = assemble(config).eval()
    x = torch.randn(7, 1)
    close(flow.decode(flow.encode(x)), x, 1e-5)
    assert flow.log_prob(x[:0]).shape == (0,)
