"""One suite for every bijection: it walks their examples()."""

import copy
import io
import pickle

import pytest
import torch
from tolerances import EXACT, FLOAT32_LOG_DET, FLOAT32_ROUND_TRIP, close
from torch.func import functional_call, jacrev, vmap
from walking import leaves

from longflow import bijections
from longflow.bijections import (
    BatchNorm,
    Bijection,
    Chain,
    Checkerboard,
    Coupling,
    ExpLinear,
    FactorOut,
    FreeLinear,
    Halves,
    Householder,
    Interleave,
    Learned,
    Permute,
    PLULinear,
    QRLinear,
    Reverse,
    Rotation,
    Scale,
    Shift,
    Squeeze,
    Under,
)
from longflow.bijections.elementwise import Logit, Standardise
from longflow.constraints import constrain
from longflow.errors import UsageError
from longflow.nets import MLP

ALL = sorted(set(leaves(Bijection)), key=lambda cls: cls.__name__)
CASES = [(cls.__name__, i) for cls in ALL for i, _ in enumerate(cls.examples())]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def example(request):
    name, index = request.param
    found = list({cls.__name__: cls for cls in ALL}[name].examples())[index]
    for p in found.bijection.parameters():
        torch.nn.init.normal_(p, std=0.4)
    constrain(found.bijection.double(), 1e-6, 1000)
    return found


def draw(example, batch=5, dtype=torch.float64):
    x = torch.randn(batch, *example.shape, dtype=dtype)
    if example.domain:
        low, high = example.domain
        x = low + (high - low) * torch.rand_like(x)
    context = None
    if example.context_shape is not None:
        context = 0.5 * torch.randn(batch, *example.context_shape, dtype=dtype)
    return x, context


def row_jacobian(step, x, context):
    """The Jacobian of each row, (B, N, N), by autograd: the oracle of every log-determinant."""

    def one(row, given):
        return step(row[None], None if given is None else given[None])[0].flatten()

    rows = [jacrev(one)(row, None if context is None else context[i]) for i, row in enumerate(x)]
    return torch.stack(rows).flatten(2)


def test_every_public_bijection_has_examples():
    assert {cls.__name__ for cls in ALL} <= set(bijections.__all__)
    assert {name for name, _ in CASES} == {cls.__name__ for cls in ALL}


def test_round_trip_both_ways(example):
    x, context = draw(example)
    z, forward = example.bijection(x, context)
    back, inverse = example.bijection.inverse(z, context)
    close(back, x)
    close(inverse, -forward)
    again, _ = example.bijection(back, context)
    close(again, z)


def test_log_det_is_that_of_the_autograd_jacobian(example):
    x, context = draw(example)
    z, log_det = example.bijection(x, context)
    assert log_det.shape == (len(x),)
    close(log_det, torch.linalg.slogdet(row_jacobian(example.bijection, x, context)).logabsdet)
    _, log_det = example.bijection.inverse(z, context)
    close(log_det, torch.linalg.slogdet(row_jacobian(example.bijection.inverse, z, context)).logabsdet)


def test_rows_do_not_meet(example):
    x, context = draw(example)
    for step in (example.bijection, example.bijection.inverse):
        if step == example.bijection.inverse:
            x = example.bijection(x, context)[0]
        together = step(x, context)
        alone = step(x[2:3], None if context is None else context[2:3])
        close(together[0][2:3], alone[0])
        close(together[1][2:3], alone[1])


def test_forward_and_inverse_change_nothing(example):
    x, context = draw(example)

    def everything():
        inside = [{k: str(v) for k, v in vars(m).items() if k != "training"} for m in example.bijection.modules()]
        return inside, {k: v.clone() for k, v in example.bijection.state_dict().items()}, torch.get_rng_state()

    given = x.clone()
    attributes, before, generator = everything()
    z, _ = example.bijection(x, context)
    kept = z.clone()
    example.bijection.inverse(z, context)
    assert torch.equal(x, given)
    assert torch.equal(z, kept)
    after = everything()
    assert after[0] == attributes
    assert all(torch.equal(before[k], v) for k, v in after[1].items())
    assert torch.equal(after[2], generator)


def test_gradient_reaches_every_parameter(example):
    x, context = draw(example)
    if not list(example.bijection.parameters()):
        return
    z, log_det = example.bijection(x, context)
    ((z.square() * torch.rand_like(z)).sum() + log_det.sum()).backward()
    for name, p in example.bijection.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().sum() > 0, name


def test_per_sample_weights_reach_per_sample_gradients(example):
    parameters = {k: v.detach() for k, v in example.bijection.named_parameters()}
    if not parameters:
        return
    x, context = draw(example)
    weights = torch.tensor([0.0, 2.0, 0.0, 1.0, 0.0], dtype=torch.float64)

    def loss(p, rows, given, weight):
        z, log_det = functional_call(example.bijection, p, (rows, given))
        return (weight * (z.square().flatten(1).sum(1) + log_det)).sum()

    whole = torch.func.grad(loss)(parameters, x, context, weights)
    for name in parameters:
        parts = sum(
            w
            * torch.func.grad(loss)(parameters, x[i : i + 1], None if context is None else context[i : i + 1], 1.0)[
                name
            ]
            for i, w in enumerate(weights)
        )
        close(whole[name], parts)


def test_vmap_over_events_agrees_with_the_batch(example):
    x, context = draw(example)
    if context is not None:
        return
    z = vmap(lambda row: example.bijection(row[None])[0][0])(x)
    close(z, example.bijection(x)[0])


def test_state_dict_deepcopy_and_pickle_reproduce(example):
    x, context = draw(example)
    expected = example.bijection(x, context)
    buffer = io.BytesIO()
    torch.save(example.bijection.state_dict(), buffer)
    buffer.seek(0)
    scrambled = copy.deepcopy(example.bijection)
    for p in scrambled.parameters():
        torch.nn.init.normal_(p)
    scrambled.load_state_dict(torch.load(buffer, weights_only=True))
    for copied in (scrambled, copy.deepcopy(example.bijection), pickle.loads(pickle.dumps(example.bijection))):
        value, log_det = copied(x, context)
        assert torch.equal(value, expected[0])
        assert torch.equal(log_det, expected[1])


def test_float32_stays_float32_within_its_tolerance(example):
    x, context = draw(example)
    _, exact = example.bijection(x, context)
    single = example.bijection.float()
    narrow = None if context is None else context.float()
    z, log_det = single(x.float(), narrow)
    back, inverse = single.inverse(z, narrow)
    assert {t.dtype for t in (z, log_det, back, inverse)} == {torch.float32}
    close(back, x.float(), FLOAT32_ROUND_TRIP)
    close(log_det.double(), exact, FLOAT32_LOG_DET)


def test_empty_batch(example):
    x, context = draw(example, batch=0)
    z, log_det = example.bijection(x, context)
    assert z.shape[0] == 0
    assert log_det.shape == (0,)


def test_compiles_as_one_graph(example):
    torch._dynamo.reset()
    x, context = draw(example)
    expected = example.bijection(x, context)
    compiled = torch.compile(example.bijection, fullgraph=True, backend="eager")
    close(compiled(x, context)[0], expected[0])
    if not example.bijection.exact:
        return
    inverse = torch.compile(example.bijection.inverse, fullgraph=True, backend="eager")
    close(inverse(expected[0].detach(), context)[0], x)


def test_trace_ends_at_the_latent(example):
    x, context = draw(example)
    values = [x, *(value for _, value in example.bijection.trace(x, context))]
    close(values[-1].flatten(1), example.bijection(x, context)[0].flatten(1))


@pytest.mark.parametrize("dims", [2, 3, 5, 8])
@pytest.mark.parametrize("view", [Interleave, Halves])
def test_two_alternating_couplings_move_every_feature(view, dims):
    for first in (0, 1):
        conditioner = MLP(dims // 2, dims - dims // 2, hidden=4, depth=1, last="relu")
        torch.nn.init.zeros_(conditioner.layers[-2].weight)
        torch.nn.init.ones_(conditioner.layers[-2].bias)
        chain = Chain(*(Under(view((k + first) % 2), Coupling(Shift(), conditioner)) for k in (0, 1)))
        x = torch.zeros(1, dims)
        assert (chain(x)[0] != x).all()


def test_halves_and_interleave_partition_as_they_say():
    x = torch.arange(5.0)[None]
    assert Interleave(0)(x)[0].tolist() == [[0, 2, 4, 1, 3]]
    assert Interleave(1)(x)[0].tolist() == [[1, 3, 0, 2, 4]]
    assert Halves(0)(x)[0].tolist() == [[0, 1, 2, 3, 4]]
    assert Halves(1)(x)[0].tolist() == [[3, 4, 0, 1, 2]]


def test_logit_keeps_the_ends_finite_and_inverts_outside():
    x = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    z, _ = Logit(0.05).double()(x)
    close(z, torch.logit(torch.tensor([[0.05, 0.95]], dtype=torch.float64)))
    assert Logit(0.05).inverse(torch.full((1, 1), 40.0))[0].item() == pytest.approx(1 + 0.05 / 0.9)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Logit(0.5), "alpha"),
        (lambda: Standardise(0.0, 0.0), "positive scales"),
        (lambda: Permute([0, 0, 1]), "each of 0..2 once"),
        (lambda: Shift()(torch.zeros(2, 3)), "context of 3 features"),
        (lambda: Shift()(torch.zeros(2, 3), torch.zeros(2, 1)), "1 came"),
        (lambda: Learned(Scale(), (3,))(torch.zeros(2, 4)), "context of 4 features"),
    ],
)
def test_bad_input_is_told(make, says):
    with pytest.raises(UsageError, match=says):
        make()


def test_tolerance_is_meant():
    with pytest.raises(AssertionError):
        close(torch.zeros(1), torch.full((1,), 2 * EXACT))


@pytest.mark.parametrize("leaf", [FreeLinear, PLULinear, QRLinear, ExpLinear, Householder, Rotation])
def test_linear_layers_start_as_rotations(leaf):
    layer = leaf(6).double()
    w = layer.matrix()
    close(w @ w.T, torch.eye(6, dtype=torch.float64), 1e-5)
    close(layer.inverse_matrix() @ w, torch.eye(6, dtype=torch.float64), 1e-9)


@pytest.mark.parametrize("layer", [Householder(6), Householder(6, reflections=2), QRLinear(6)], ids=["6", "2", "qr"])
def test_reflections_one_after_the_other_are_the_product(layer):
    layer = layer.double()
    w = torch.eye(6).double()
    for v in layer.reflections:
        w = w @ (torch.eye(6).double() - 2 * torch.outer(v, v) / (v @ v))
    close(layer.matrix(), w)
    x = torch.randn(4, 6, 3).double()
    close(layer(x)[0], torch.einsum("ij,bjp->bip", w, x))
    close(layer(x[..., 0])[0], layer(x)[0][..., 0])


def test_det_of_exp_is_exp_of_trace():
    layer = ExpLinear(5).double()
    torch.nn.init.normal_(layer.log_matrix)
    close(torch.linalg.slogdet(layer.matrix()).logabsdet, layer.log_matrix.trace())
    assert torch.linalg.det(layer.matrix()) > 0


def test_trace_passes_an_empty_chain():
    steps = list(Chain(Reverse(), Chain(), Reverse()).trace(torch.arange(3.0)[None]))
    assert [name for name, _ in steps] == ["Reverse", "Reverse"]
    assert steps[-1][1].tolist() == [[0, 1, 2]]


def test_squeeze_has_the_order_that_it_says():
    x = torch.arange(2 * 4 * 4.0).reshape(1, 2, 4, 4)
    z = Squeeze()(x)[0]
    close(z, torch.nn.functional.pixel_unshuffle(x, 2))
    assert z[0, 4 * 1 + 2 * 1 + 0, 0, 1] == x[0, 1, 2 * 0 + 1, 2 * 1 + 0]


def test_factor_out_leaves_the_second_half_alone():
    x = torch.randn(3, 5)
    assert torch.equal(FactorOut(Reverse())(x)[0], torch.cat((x[:, :2].flip(1), x[:, 2:]), 1))


def test_checkerboard_has_the_colours_that_it_says():
    x = torch.arange(8.0).reshape(1, 1, 2, 4)
    first, second = Checkerboard(0).arrange(x)[0]
    assert first.tolist() == [[0, 2], [5, 7]]
    assert second.tolist() == [[1, 3], [4, 6]]
    assert torch.equal(Checkerboard(1).arrange(x)[0, 0], second)


def test_batch_norm_in_training_normalises_by_the_batch_and_stores_nothing():
    torch.manual_seed(0)
    x = (3 * torch.randn(50, 2, 3, 3) + 1).double()
    layer = BatchNorm((2, 1, 1)).double()
    before = copy.deepcopy(layer.state_dict())
    z, log_det = layer(x)
    close(z.mean((0, 2, 3)), torch.zeros(2).double())
    close(z.var((0, 2, 3), correction=0), torch.ones(2).double(), 1e-4)
    variance = x.var((0, 2, 3), correction=0)
    close(log_det, (-4.5 * (variance + 1e-4).log().sum()).expand(50))
    assert all(torch.equal(before[k], v) for k, v in layer.state_dict().items())
    layer.adapt(x)
    close(layer.eval()(x)[0], z)


def test_a_chain_with_batch_norm_refuses_reversible_memory():
    with pytest.raises(UsageError, match="in training too"):
        Chain(Under(Interleave(), Chain(BatchNorm((2,)))), memory="reversible")


def test_scales_come_finest_first_and_pass_views():
    z = torch.arange(16.0).reshape(1, 1, 4, 4)
    fine, coarse = Under(Squeeze(), FactorOut(Reverse())).scales(z)
    close(torch.cat((coarse, fine), 1), Squeeze().arrange(z))
    assert Chain().scales(z) == (z,)
