"""One suite for the catalogue: every model, of every shape, is a density, learns, and comes back from disk."""

import copy
import functools
import json
import math

import pytest
import torch
from safetensors.torch import save_file
from tolerances import FLOAT32_ROUND_TRIP, close
from torch.func import jacrev

import longflow
from longflow.bijections import Affine, Chain, Coupling, Interleave, Under, adapt, settle
from longflow.constraints import constrain
from longflow.distributions import Dequantised, Flow, StandardNormal
from longflow.errors import UsageError
from longflow.models import CATALOGUE, PREPROCESSING, assemble
from longflow.nets import MLP
from longflow.objectives import ClassLikelihood
from longflow.runs import Run

SMALL = {
    "nice": {"hidden": 12, "depth": 2, "couplings": 3},
    "realnvp": {"width": 6, "blocks": 1},
    "glow": {"width": 8, "depth": 2},
    "maf": {"layers": 2, "hidden": 16, "depth": 1},
    "iaf": {"layers": 2, "hidden": 16, "depth": 1},
    "nsf": {"layers": 2, "hidden": 16, "blocks": 1, "bins": 4},
    "naf": {"layers": 2, "signals": 3, "hidden": 16, "depth": 1},
    "iresnet": {"width": 8, "depth": 1, "blocks": 2, "coefficient": 0.8},
    "ffjord": {"width": 6, "depth": 1, "solver_steps": 2, "evaluation_steps": 32},
    "residualflow": {"width": 8, "depth": 1, "blocks": 2, "coefficient": 0.8},
}
OWN = {name: {"scales": None} for name in ("glow", "realnvp", "residualflow")}
OWN["iresnet"] = {"scales": None, "padding": 0}
"""Options that a preset fixes for its own data, and that the shapes here cannot take."""

COARSE = {"ffjord": {"evaluation_steps": 2}}
"""Steps of a solver that are enough where its error does not matter, or less than that of a grid."""

FLOWS = {name: model for name, model in CATALOGUE.items() if model.objective is None}
"""The models that are trained by their likelihood; tests/test_autoencoders.py is about the others."""

SHAPES = [(2,), (3,), (7,), (1, 4, 4), (3, 2, 2)]
CASES = [
    (name, preset, shape) for name, model in FLOWS.items() for preset in (None, *model.presets) for shape in SHAPES
]


def stirred(model):
    """Move every parameter a little, so that no layer is the identity."""
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p)
    constrain(model, 1e-6, 1000)
    return model


WALKS = ("iaf", "maf", "naf", "nsf")
"""Models one of whose ways walks through the features, one after the other: its graph grows with them."""

COMPILED = [
    (name, p, s)
    for name, m in FLOWS.items()
    for p in (None, *list(m.presets)[: name not in WALKS])
    for s in (SHAPES[:1] if name in WALKS else SHAPES[1:4:2])
]
"""Compiling takes seconds, and the presets differ in sizes more than in kind."""

SOLVED = ("naf",)
"""Models of numerical inverses, of which each feature of each transform unrolls some 40 evaluations into the graph."""


def named(case):
    return f"{case[0]}-{case[1]}-{'x'.join(map(str, case[2]))}"


@pytest.fixture(params=CASES, ids=named)
def flow(request):
    return small(*request.param)


def small(name, preset, shape, **options):
    model = longflow.build(name, shape=shape, preset=preset, **{**SMALL[name], **OWN.get(name, {}), **options})
    return stirred(model).double().eval()


def test_every_model_is_tried():
    assert set(SMALL) == set(FLOWS)


def test_log_prob_is_that_of_the_base_and_the_jacobian(flow):
    x = torch.randn(3, *flow.shape, dtype=torch.float64)
    z = flow.encode(x)
    assert z.shape == x.shape
    jacobian = torch.stack([jacrev(lambda row: flow.encode(row[None]).flatten())(row).flatten(1) for row in x])
    close(flow.log_prob(x), flow.base.log_prob(z) + torch.linalg.slogdet(jacobian).logabsdet)


def test_decode_inverts_encode_in_both_dtypes(flow):
    x = torch.randn(4, *flow.shape, dtype=torch.float64)
    close(flow.decode(flow.encode(x)), x)
    close(flow.float().decode(flow.encode(x.float())), x.float(), FLOAT32_ROUND_TRIP)


def test_sample_and_log_prob_agree(flow):
    x, log_prob = flow.sample_and_log_prob(5)
    assert x.shape == (5, *flow.shape)
    assert x.dtype == torch.float64
    close(flow.log_prob(x), log_prob)


@pytest.mark.parametrize("case", COMPILED, ids=named)
def test_compiles_as_one_graph(case):
    flow = small(*case, **COARSE.get(case[0], {}))
    torch._dynamo.reset()
    x = torch.randn(3, *flow.shape, dtype=torch.float64)
    compiled = torch.compile(flow.log_prob, fullgraph=True, backend="eager")
    close(compiled(x), flow.log_prob(x))
    if not flow.bijection.exact or case[0] in SOLVED:
        return
    sampled = torch.compile(flow.sample, fullgraph=True, backend="eager")
    torch.manual_seed(3)
    drawn = sampled(4)
    torch.manual_seed(3)
    close(drawn, flow.sample(4))


def test_saves_and_loads_the_same_density(flow, tmp_path):
    flow.float().save(tmp_path / "model")
    back = longflow.load(tmp_path / "model")
    x = torch.randn(4, *flow.shape)
    assert torch.equal(back.log_prob(x), flow.log_prob(x))
    torch.manual_seed(3)
    drawn = flow.sample(2)
    torch.manual_seed(3)
    assert torch.equal(back.sample(2), drawn)


def test_a_model_of_classes_compiles_with_labels_and_without():
    flow = stirred(longflow.build("glow", shape=(1, 4, 4), classes=3, width=8, depth=1)).double().eval()
    torch._dynamo.reset()
    x, y = torch.randn(3, 1, 4, 4, dtype=torch.float64), torch.tensor([2, 0, 1])
    compiled = torch.compile(flow.log_prob, fullgraph=True, backend="eager")
    close(compiled(x, y), flow.log_prob(x, y))
    close(compiled(x), flow.log_prob(x))


@pytest.mark.parametrize("name", FLOWS)
def test_learns(name):
    torch.manual_seed(0)
    flow = longflow.build(name, shape=(4,), **SMALL[name])
    x = torch.randn(256, 2).repeat(1, 2) + 0.05 * torch.randn(256, 4)
    adapt(flow, x)
    start = flow.log_prob(x).mean().item()
    optimiser = torch.optim.Adam(flow.parameters(), 1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        (-flow.log_prob(x).mean()).backward()
        optimiser.step()
        constrain(flow)
    assert flow.log_prob(x).mean().item() > start + 1


@pytest.mark.parametrize("name", FLOWS)
def test_context_changes_the_density(name):
    flow = stirred(longflow.build(name, shape=(3,), context=2, **SMALL[name]))
    x, c = torch.randn(5, 3), torch.randn(5, 2)
    assert (flow.log_prob(x, c) - flow.log_prob(x, -c)).abs().max() > 1e-3
    close(flow.decode(flow.encode(x, c), c), x, 1e-4)
    with pytest.raises(UsageError, match="context"):
        flow.log_prob(x)


@pytest.mark.parametrize("kind", PREPROCESSING)
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_preprocessing_keeps_the_units_of_the_data(kind, levels):
    """Whatever the first bijection, log p is per unit of the stored levels: the Jacobian says so."""
    config = {"model": "nice", "options": SMALL["nice"], "shape": [1, 2, 2], "preprocess": kind, "levels": levels}
    model = assemble(config).double().eval()
    assert isinstance(model, Dequantised)
    y = levels * (0.02 + 0.96 * torch.rand(1, 1, 2, 2, dtype=torch.float64))
    jacobian = jacrev(lambda row: model.density.encode(row).flatten())(y).reshape(4, 4)
    expected = model.base.log_prob(model.density.encode(y)) + torch.linalg.slogdet(jacobian).logabsdet
    close(model.density.log_prob(y), expected, 1e-8)
    x = torch.randint(levels, (6, 1, 2, 2)).double()
    assert torch.equal(model.decode(model.encode(x)), x)


def test_preprocessing_maps_the_range_of_levels_as_it_says():
    ends = torch.tensor([[0.0, 17.0]])
    for kind, expected in (("unit", [0.0, 1.0]), ("centred", [-0.5, 0.5]), ("none", [0.0, 17.0])):
        assert PREPROCESSING[kind]((2,), 17)(ends)[0].tolist() == [pytest.approx(expected)]
    logit = PREPROCESSING["logit"]((2,), 17)(ends)[0]
    close(logit.sigmoid(), torch.tensor([[0.05, 0.95]]), 1e-6)


def test_nice_of_the_paper_has_the_published_size():
    """4 couplings of 5 x 1000 for 784 dimensions: the essay says "twenty million"; exactly 19,158,352."""
    flow = longflow.build("nice", shape=(1, 28, 28))
    assert sum(p.numel() for p in flow.parameters()) == 19_158_352


def test_nice_has_unit_log_det_but_for_its_scales():
    flow = longflow.build("nice", shape=(5,), **SMALL["nice"])
    torch.nn.init.normal_(flow.bijection.parts[-1].theta)
    close(flow.bijection(torch.randn(2, 5))[1], flow.bijection.parts[-1].theta.sum().expand(2), 1e-6)


def test_essay_generator_adds_positive_numbers():
    flow = longflow.build("nice", shape=(6,), preset="essay", couplings=1, hidden=8, depth=1)
    x = torch.randn(50, 6)
    assert (flow.encode(x) <= x).all()
    assert (flow.encode(x) < x).any()


def test_explicit_options_win_over_the_preset():
    flow = longflow.build("nice", shape=(4,), preset="essay", prior="logistic", hidden=4, depth=1)
    assert flow.config["options"]["prior"] == "logistic"
    assert flow.config["options"]["last"] == "relu"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: longflow.build("nise", shape=(2,)), "did you mean 'nice'"),
        (lambda: longflow.build("nice", shape=(1,)), "at least 2"),
        (lambda: longflow.build("nice", shape=()), "shape"),
        (lambda: longflow.build("nice", shape=(2, 0)), "shape"),
        (lambda: longflow.build("nice", shape=(2,), hiden=3), "did you mean 'hidden'"),
        (lambda: longflow.build("nice", shape=(2,), prior="norml"), "did you mean 'normal'"),
        (lambda: longflow.build("nice", shape=(2,), preset="esay"), "did you mean 'essay'"),
        (lambda: longflow.build("nice", shape=(2,), couplings=0), "couplings >= 1"),
        (lambda: longflow.build("nice", shape=(2,), hidden=0), "hidden >= 1"),
        (lambda: longflow.build("nice", shape=(2,), dropout=1.0), "dropout"),
        (lambda: longflow.build("nice", shape=(2,), hidden="8"), "whole number"),
        (lambda: longflow.build("nice", shape=(2,), couplings=True), "whole number"),
        (lambda: longflow.build("nice", shape=2), "tuple"),
        (lambda: longflow.build("nice", shape=(2.7,)), "tuple"),
        (lambda: longflow.build("nice", shape="22"), "tuple"),
        (lambda: assemble({"model": "nice"}), "lacks options, shape"),
        (
            lambda: assemble({"model": "nice", "options": {}, "shape": [2], "preprocess": "logit", "levels": None}),
            "levels",
        ),
    ],
)
def test_bad_input_is_told(call, says):
    with pytest.raises(UsageError, match=says):
        call()


def test_a_folder_of_another_model_is_told(tmp_path):
    flow = longflow.build("nice", shape=(3,), hidden=4, depth=1)
    flow.save(tmp_path / "a")
    with pytest.raises(UsageError, match="already holds"):
        flow.save(tmp_path / "a")
    run = Run(tmp_path / "a")
    run.write_weights(longflow.build("nice", shape=(3,), hidden=5, depth=1).state_dict())
    with pytest.raises(UsageError, match="another model"):
        longflow.load(tmp_path / "a")
    save_file({"x": torch.zeros(1)}, run.weights_file)
    with pytest.raises(UsageError, match="another model"):
        longflow.load(tmp_path / "a")
    run.weights_file.write_bytes(run.weights_file.read_bytes()[:-2])
    with pytest.raises(UsageError, match="damaged"):
        longflow.load(tmp_path / "a")
    run.weights_file.unlink()
    with pytest.raises(UsageError, match=r"lacks model\.safetensors"):
        longflow.load(tmp_path / "a")
    run.config_file.write_text("{")
    with pytest.raises(UsageError, match="damaged"):
        longflow.load(tmp_path / "a")
    run.config_file.write_text(json.dumps([1]))
    with pytest.raises(UsageError, match="JSON object"):
        longflow.load(tmp_path / "a")
    with pytest.raises(UsageError, match="none at"):
        longflow.load(tmp_path / "nowhere")


def test_a_flow_made_by_hand_is_a_density_like_any_other():
    step = lambda k: Under(Interleave(k % 2), Coupling(Affine(), MLP(2, 4, hidden=8, depth=2)))  # noqa: E731
    flow = stirred(Flow(Chain(*map(step, range(4))), StandardNormal((4,)))).double()
    x, log_prob = flow.sample_and_log_prob(6)
    close(flow.log_prob(x), log_prob)
    with pytest.raises(UsageError, match=r"longflow\.build"):
        flow.save("never")


def test_glow_of_the_paper_has_nearly_the_published_size():
    """44.0 M parameters published for CIFAR-10; 44.2 M counted with both triangles of PLU stored, as here."""
    flow = longflow.build("glow", shape=(3, 32, 32), preset="cifar10")
    assert sum(p.numel() for p in flow.parameters()) == 44_152_272
    essay = longflow.build("glow", shape=(3, 32, 32), preset="essay")
    assert sum(p.numel() for p in essay.parameters()) == 7_082_808


def test_glow_starts_as_its_source_says():
    """Zero-initialised couplings: additive keeps volume; affine shrinks by log σ(2) for each moving number."""
    x = torch.randn(3, 1, 4, 4)
    small = {"shape": (1, 4, 4), "mixing": "reverse", "scales": 1, "depth": 3, "width": 4}
    additive = longflow.build("glow", coupling="additive", **small)
    close(additive.bijection(x)[1], torch.zeros(3), 1e-6)
    affine = longflow.build("glow", coupling="affine", **small)
    shrink = 3 * 8 * torch.nn.functional.logsigmoid(torch.tensor(2.0))
    close(affine.bijection(x)[1], shrink.expand(3), 1e-5)


@pytest.mark.parametrize("mixing", ["reverse", "shuffle", "free", "plu", "qr", "exp"])
def test_every_mixing_trains_and_inverts(mixing):
    torch.manual_seed(0)
    flow = longflow.build("glow", shape=(2, 4, 4), mixing=mixing, depth=2, width=8)
    x = torch.randn(64, 2, 4, 4).cumsum(3)
    adapt(flow, x)
    optimiser = torch.optim.Adam(flow.parameters(), 1e-2)
    start = flow.log_prob(x).mean().item()
    for _ in range(20):
        optimiser.zero_grad()
        (-flow.log_prob(x).mean()).backward()
        optimiser.step()
    assert flow.log_prob(x).mean().item() > start
    close(flow.decode(flow.encode(x)), x, 1e-3)


@pytest.mark.parametrize(
    ("shape", "options", "says"),
    [
        ((1, 7, 8), {}, "halved 0 time"),
        ((1, 4, 4), {"scales": 3}, "halved 2 time"),
        ((1, 8), {}, "events of shape"),
        ((1, 4, 4), {"mixing": "plv"}, "did you mean 'plu'"),
        ((1, 4, 4), {"depth": 0}, "depth >= 1"),
        ((1, 4, 4), {"classes": 2, "context": 3}, "not both"),
        ((1, 4, 4), {"classes": 1}, "at least 2 classes"),
        ((1, 4, 4), {"classes": 2, "class_prior": "top"}, "unknown class prior 'top'"),
    ],
)
def test_glow_tells_bad_input(shape, options, says):
    with pytest.raises(UsageError, match=says):
        longflow.build("glow", shape=shape, **options)


def restless():
    """A RealNVP of batches, trained a little so that its statistics are no longer those it began with, and its data."""
    return copy.deepcopy(_restless())


@functools.cache
def _restless():
    torch.manual_seed(0)
    x = torch.rand(256, 1, 4, 4).cumsum(3) + 5 * torch.rand(256, 1, 1, 1)
    flow = longflow.build("realnvp", shape=(1, 4, 4), norm="batch", width=8, blocks=1)
    adapt(flow, x)
    optimiser = torch.optim.Adam(flow.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        (-flow.log_prob(x).mean()).backward()
        optimiser.step()
    return flow, x


def test_the_classifier_of_the_i_resnet_paper_has_its_size():
    """Blocks of (in, width) by hand, scales of 7: convolutions, biases, ActNorm; then BN, a linear map, the prior."""
    sides = ((16, 32), (64, 64), (256, 128))
    blocks = sum(7 * (9 * c * w + w + w * w + w + 9 * w * c + c + 2 * c) for c, w in sides)
    assert round(blocks / 1e6, 2) == 4.87
    with torch.device("meta"):
        flow = longflow.build("iresnet", shape=(3, 32, 32), preset="classifier")
    assert flow.latent_shape == (16, 32, 32)
    found = sum(p.numel() for p in flow.parameters())
    assert found == blocks + 2 * 256 + 256 * 10 + 10 + 2 * 16 * 32**2 == 4_905_946


@pytest.mark.parametrize("name", FLOWS)
def test_counting_needs_no_numbers(name):
    """`sizes` builds on the meta device."""
    for preset in CATALOGUE[name].presets:
        options = {**SMALL[name], **OWN.get(name, {})}
        real = longflow.build(name, shape=(3, 4, 4), preset=preset, **options)
        with torch.device("meta"):
            meta = longflow.build(name, shape=(3, 4, 4), preset=preset, **options)
        assert [p.shape for p in meta.parameters()] == [p.shape for p in real.parameters()]


def test_realnvp_of_the_paper_has_the_published_sizes():
    """46.2 M published for 32x32 ImageNet; for CIFAR-10 6.4 M in one table, which is the width that does not double."""
    sizes = {"cifar10": 19_628_092, "cifar10-narrow": 6_380_668, "imagenet32": 46_248_004}
    for preset, size in sizes.items():
        flow = longflow.build("realnvp", shape=(3, 32, 32), preset=preset)
        learned = sum(p.numel() for p in flow.parameters())
        assert learned == size


def test_batch_statistics_of_evaluation_are_those_of_the_weights_that_are_evaluated():
    """The trap of running statistics: taken before the weights moved, they make the likelihood collapse."""
    flow, x = restless()
    trained = flow.train().log_prob(x).mean().item()
    stale = flow.eval().log_prob(x).mean().item()
    settle(flow, x)
    assert stale < trained - 5
    assert flow.eval().log_prob(x).mean().item() == pytest.approx(trained, abs=0.02)


def test_settling_changes_statistics_only():
    flow, x = restless()
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    settle(flow, x)
    changed = {name.split(".")[-1] for name, value in flow.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"mean", "variance"}


def test_in_evaluation_mode_no_row_of_a_batch_norm_depends_on_the_others():
    flow, x = restless()
    settle(flow, x)
    flow.double().eval()
    x = x.double()
    close(flow.log_prob(x[:1]), flow.log_prob(x)[:1])
    close(flow.decode(flow.encode(x)), x, 1e-7)


def test_scales_of_a_latent_are_a_partition_from_fine_to_coarse():
    for name, sizes in (("glow", [96, 48, 48]), ("realnvp", [96, 96])):
        flow = longflow.build(name, shape=(3, 8, 8), **SMALL[name])
        where = flow.scale_map()
        assert where.shape == (3, 8, 8)
        assert torch.bincount(where.flatten()).tolist() == sizes
    assert longflow.build("nice", shape=(5,), hidden=4, depth=1).scale_map().tolist() == [0] * 5


def test_moving_a_scale_leaves_the_other_latents_alone():
    flow = stirred(longflow.build("glow", shape=(1, 8, 8), width=8, depth=2)).double().eval()
    z = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    fine = flow.scale_map() == 0
    moved = flow.encode(flow.decode(torch.where(fine, torch.randn_like(z), z)))
    close(moved[:, ~fine], z[:, ~fine])
    assert (moved[:, fine] - z[:, fine]).abs().max() > 0.1


def test_temperature_may_differ_between_scales():
    flow = stirred(longflow.build("glow", shape=(1, 8, 8), width=8, depth=1)).double().eval()
    where = flow.scale_map()
    z = flow.encode(flow.sample(6, temperature=torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)[where]))
    close(z[:, where != 1], torch.zeros_like(z[:, where != 1]), 1e-7)
    assert z[:, where == 1].std() > 0.5
    with pytest.raises(UsageError, match="temperatures"):
        flow.sample(2, temperature=torch.ones(3))
    with pytest.raises(UsageError, match="temperatures"):
        flow.sample(2, temperature=-torch.ones(1, 8, 8))


@pytest.mark.parametrize("prior", ["every", "last"])
@pytest.mark.parametrize("shape", [(4,), (2, 4, 4)])
def test_classes_make_a_mixture_of_conditional_densities(shape, prior):
    options = {"classes": 3, "class_prior": prior, "width": 8, "depth": 1}
    flow = stirred(longflow.build("glow", shape=shape, **options)).double().eval()
    x = torch.randn(5, *shape, dtype=torch.float64)
    each = torch.stack([flow.log_prob(x, torch.full((5,), k)) for k in range(3)])
    close(flow.log_prob(x), torch.logsumexp(each, 0) - math.log(3))
    log_prob, logits = flow.joint(x, torch.tensor([0, 1, 2, 1, 0]))
    close(log_prob, each.gather(0, torch.tensor([[0, 1, 2, 1, 0]]))[0])
    assert logits.shape == (5, 3)
    assert (each[0] - each[1]).abs().max() > 1e-3


def test_classes_are_learnt_and_drawn():
    torch.manual_seed(0)
    labels = torch.arange(400) % 2
    x = 0.5 * torch.randn(400, 2) + 4.0 * labels[:, None] - 2
    flow = longflow.build("glow", shape=(2,), classes=2, width=16, depth=2, mixing="reverse")
    adapt(flow, x)
    optimiser = torch.optim.Adam(flow.parameters(), 1e-2)
    for _ in range(200):
        optimiser.zero_grad()
        [(_, loss)] = ClassLikelihood(weight=1.0)(flow, x, labels)
        loss.backward()
        optimiser.step()
    flow.eval()
    z = flow.encode(x)
    assert (flow.base.log_joint(z).argmax(1) == labels).float().mean() > 0.98
    assert (flow.base.classify(z).argmax(1) == labels).float().mean() > 0.98
    drawn = flow.sample(200, labels[:200])
    assert ((drawn.mean(1) > 0) == (labels[:200] == 1)).float().mean() > 0.95


def test_the_papers_class_prior_moves_the_channels_of_the_last_scale_only():
    flow = longflow.build("glow", shape=(3, 8, 8), classes=2, class_prior="last", width=4, depth=1)
    assert flow.base.loc.shape == (2, 48, 1)
    torch.nn.init.ones_(flow.base.raw_loc)
    z = flow.base.sample(1, torch.tensor([1]), temperature=0.0)[0]
    assert torch.equal(z != 0, flow.scale_map() == 2)


@pytest.mark.parametrize(
    ("classes", "says"),
    [(torch.tensor([0, 3]), "classes 0 to 2; 0 to 3"), (torch.tensor([0]), "2 classes"), (torch.ones(2), "whole")],
)
def test_wrong_classes_are_told(classes, says):
    flow = longflow.build("glow", shape=(2,), classes=3, width=4, depth=1)
    with pytest.raises(UsageError, match=says):
        flow.log_prob(torch.randn(2, 2), classes)
    with pytest.raises(UsageError, match="a tensor of shape"):
        flow.sample(2, [0, 1])
    with pytest.raises(UsageError, match="expected no context"):
        longflow.build("glow", shape=(2,), width=4, depth=1).sample(2, torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("shape", "options", "says"),
    [
        ((1, 7, 8), {}, "halved 0 times; 6x8 or 8x10"),
        ((1, 4, 4), {"scales": 3}, "halved 2 time"),
        ((1, 8), {}, "events of shape"),
        ((1, 4, 4), {"norm": "bath"}, "did you mean 'batch'"),
        ((1, 4, 4), {"norm": "batch", "memory": "reversible"}, "exact, in training too"),
        ((1, 4, 4), {"blocks": 0}, "blocks >= 1"),
    ],
)
def test_realnvp_tells_bad_input(shape, options, says):
    with pytest.raises(UsageError, match=says):
        longflow.build("realnvp", shape=shape, **options)


MOVES = [(name, {}, shape) for name in FLOWS for shape in ((3,), (1, 4, 4))]
MOVES += [("nsf", {"kind": "autoregressive"}, (3,))]
MOVES += [
    ("glow", {"coupling": kind}, shape)
    for kind in ("affine-tanh", "affine-half", "additive")
    for shape in ((3,), (1, 4, 4))
]


@pytest.mark.parametrize(("name", "options", "shape"), MOVES)
def test_every_parameter_learns_from_the_start(name, options, shape):
    """A factor that starts at nought beside another would stay there: neither has a gradient."""
    torch.manual_seed(0)
    flow = longflow.build(name, shape=shape, **{**SMALL[name], **options})
    x = torch.randn(128, *shape).cumsum(1)
    adapt(flow, x)
    start = {n: p.detach().clone() for n, p in flow.named_parameters()}
    optimiser = torch.optim.Adam(flow.parameters(), 1e-2)
    for _ in range(8):
        optimiser.zero_grad()
        (-flow.log_prob(x).mean()).backward()
        optimiser.step()
    still = [n for n, p in flow.named_parameters() if torch.equal(p, start[n])]
    assert not still
