"""Flows as sbi's density estimators, where sbi is."""

import pickle

import pytest
import torch
from tolerances import close

pytest.importorskip("sbi")
from sbi.inference import NPE
from sbi.utils import BoxUniform

from longflow.errors import UsageError
from longflow.sbi import density_estimator

SMALL = {"layers": 2, "hidden": 8, "blocks": 1}


def test_shapes_are_sbis_and_units_those_of_the_batches():
    theta, x = 100 + 5 * torch.randn(300, 2), 1e3 * torch.randn(300, 3, 4)
    estimator = density_estimator("nsf", **SMALL)(theta, x)
    assert (estimator.input_shape, estimator.condition_shape) == ((2,), (3, 4))
    inputs = 100 + torch.randn(7, 5, 2)
    found = estimator.log_prob(inputs, x[:5])
    assert found.shape == (7, 5)
    for i in range(7):
        close(estimator.log_prob(inputs[i], x[:5])[0], found[i], 1e-5)
    close(estimator.loss(inputs[0], x[:5]), -found[0], 1e-5)
    assert estimator.log_prob(inputs[:, :1], x[:5]).shape == (7, 5)
    assert estimator.log_prob(inputs, x[:1]).shape == (7, 5)
    assert estimator.log_prob(inputs, x[:35].reshape(7, 5, 3, 4)).shape == (7, 5)
    drawn = estimator.sample((6, 3), x[:5])
    assert drawn.shape == (6, 3, 5, 2)
    assert drawn.mean() == pytest.approx(100, abs=10)
    again = pickle.loads(pickle.dumps(estimator))
    close(again.log_prob(inputs, x[:5]), found)


def test_npe_trains_it_and_samples_its_posterior():
    prior = BoxUniform(-torch.ones(2), torch.ones(2))
    theta = prior.sample((400,))
    x = theta + 0.1 * torch.randn(400, 2)
    inference = NPE(prior, density_estimator=density_estimator("nsf", **SMALL), show_progress_bars=False)
    estimator = inference.append_simulations(theta, x).train(
        training_batch_size=50, max_num_epochs=30, learning_rate=5e-3
    )
    draws = inference.build_posterior(estimator).sample((500,), x=torch.tensor([0.3, -0.2]), show_progress_bars=False)
    close(draws.mean(0), torch.tensor([0.3, -0.2]), 0.15)
    assert draws.std(0).max() < 0.3


def test_an_embedding_is_trained_with_the_flow():
    theta, x = torch.randn(100, 2), torch.randn(100, 3, 4)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    estimator = density_estimator("nsf", embedding=network, **SMALL)(theta, x)
    for p in estimator.net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    estimator.loss(theta, x).mean().backward()
    assert network[1].weight.grad.abs().sum() > 0
    with pytest.raises(UsageError, match="finite rows"):
        density_estimator("nsf", **SMALL)(theta[:1], x[:1])
