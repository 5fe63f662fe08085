"""The recurrent decoder against its own definition, one number after the other."""

import pytest
import torch
from tolerances import close

import longflow
from longflow.distributions import Recurrent
from longflow.errors import UsageError


def made(shape, levels, context=3, width=5):
    model = Recurrent(shape, levels, context=context, width=width).double()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.6)
    return model


def cell(model, seen, state):
    """One step of gated recurrent units, written out (Cho et al. 2014; reset before the product, as in torch)."""
    w, u = model.units.weight_ih_l0, model.units.weight_hh_l0
    a, b = seen @ w.T + model.units.bias_ih_l0, state @ u.T + model.units.bias_hh_l0
    (ar, au, an), (br, bu, bn) = a.chunk(3, 1), b.chunk(3, 1)
    reset, update = torch.sigmoid(ar + br), torch.sigmoid(au + bu)
    return (1 - update) * torch.tanh(an + reset * bn) + update * state


def test_log_prob_is_the_product_of_conditionals_in_raster_order():
    """Pixels line by line, the channels of a pixel together, by a loop that sees one number at a time."""
    model = made((2, 2, 3), 4)
    x, z = torch.randint(4, (5, 2, 2, 3)).double(), torch.randn(5, 3, dtype=torch.float64)
    state, before, nats = model.start(z).tanh(), torch.full((5,), 4), torch.zeros(5, dtype=torch.float64)
    for row in range(2):
        for column in range(3):
            for channel in range(2):
                state = cell(model, torch.cat((model.embedding(before), z), 1), state)
                before = x[:, channel, row, column].long()
                nats = nats + model.last(state).log_softmax(1)[torch.arange(5), before]
    close(model.log_prob(x, z), nats)


def test_a_number_depends_on_those_before_it_alone():
    """The gradient cannot say, of levels; but changing a number changes no conditional before it."""
    model = made((6,), 3)
    x, z = torch.randint(3, (1, 6)), torch.randn(1, 3, dtype=torch.float64)
    for changed in range(6):
        other = x.clone()
        other[:, changed] = (x[:, changed] + 1) % 3
        logits = []
        for levels in (x, other):
            before = torch.cat((torch.full((1, 1), 3), levels[:, :-1]), 1)
            logits.append(model._step(before, z, model.start(z).tanh())[0][0])
        same = (logits[0] - logits[1]).abs().amax(1) == 0
        assert same.tolist() == [i <= changed for i in range(6)]


def test_temperature_zero_is_the_likeliest_level_after_those_before_it():
    """Conditionals from the probabilities of all events: those of a beginning are the sum over its endings."""
    model = made((4,), 3)
    events = torch.cartesian_prod(*[torch.arange(3)] * 4)
    for z in torch.randn(5, 1, 3, dtype=torch.float64):
        p = model.log_prob(events.double(), z.expand(len(events), -1)).exp().reshape(3, 3, 3, 3)
        greedy: list[int] = []
        for i in range(4):
            greedy.append(int(p[tuple(greedy)].flatten(1).sum(1).argmax() if i < 3 else p[tuple(greedy)].argmax()))
        assert model.mean(z)[0].tolist() == greedy
        assert model.sample(1, z, 0.0)[0].tolist() == greedy


def test_temperatures_of_single_numbers_are_theirs():
    model = made((2, 1, 2), 3)
    z = torch.randn(1, 3, dtype=torch.float64).expand(300, 3)
    temperature = torch.zeros(2, 1, 2, dtype=torch.float64)
    temperature[1, 0, 0] = 1.0  # the second in the order of reading: what is before it is still
    drawn = model.sample(300, z, temperature)
    assert (drawn[:, 0, 0, 0] == drawn[0, 0, 0, 0]).all()
    assert len(drawn[:, 1, 0, 0].unique()) > 1


@pytest.mark.parametrize("name", ["vae", "bnvae"])
def test_an_autoencoder_of_it_learns_what_pixels_have_in_common(name):
    """Two pictures and their negatives: the pixels are not independent, given a code or not."""
    torch.manual_seed(0)
    own = {"decoder": "gru", "likelihood": "bernoulli", "latent": 2, "width": 16}
    model = longflow.build(name, (1, 2, 4), levels=2, **own)
    assert model.levels == 2
    assert model.likelihood == "lower bound"
    first = torch.tensor([[0.0, 0, 1, 1, 0, 1, 0, 1]])
    x = torch.cat((first, 1 - first)).repeat(32, 1).reshape(64, 1, 2, 4)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(200):
        optimiser.zero_grad()
        (-model.log_prob(x).mean()).backward()
        optimiser.step()
    with torch.no_grad():
        assert model.log_prob(x).mean() > -1.5  # log 2 is the entropy; independent pixels cost 8 log 2
        drawn = model.sample(200)
    assert drawn.unique().tolist() == [0, 1]
    right = (drawn.flatten(1) == first).all(1) | (drawn.flatten(1) == 1 - first).all(1)
    assert right.float().mean() > 0.7


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Recurrent((3,), 1, context=2, width=4), "levels"),
        (lambda: Recurrent((3,), 2, context=0, width=4), "at least 1"),
        (lambda: Recurrent((3,), 2, context=2, width=4).log_prob(torch.zeros(2, 3)), "context"),
        (lambda: Recurrent((3,), 2, context=2, width=4).sample(2, torch.zeros(2, 3)), "context"),
        (lambda: longflow.build("vae", (4,), decoder="gru"), "bernoulli or categorical"),
        (lambda: longflow.build("bnvae", (4,), levels=4, decoder="gru", likelihood="logistic"), "bernoulli"),
        (lambda: longflow.build("vae", (4,), levels=4, decoder="grü"), "independent"),
        (lambda: longflow.build("vae", (4,), levels=4, decoder="gru", likelihood="bernoulli"), "2 levels"),
    ],
)
def test_bad_input_is_told(call, says):
    with pytest.raises(UsageError, match=says):
        call()
