"""The plain VAE beside pythae's, of the same weights, data, order and noise: the same loss? In what time?

    LONGFLOW_DATA=... PYTHONPATH=src PEERS/bin/python benchmarks/peer_vae.py --steps 1200 --out OUT/peer_vae.jsonl

In an environment that has pythae. Both minimise the negative ELBO of binary MNIST, 784-256-20-256-784, by Adam 1e-3 on
the same batches, each in a loop of its own that does nothing else; steps are taken in turns of a hundred, so that both
meet the same noise of the machine, and CPU time of one thread is the clock.
"""

import argparse
import json
import time
from pathlib import Path

import pythae
import torch
import torch.nn.functional as F
from equal_time import commit_that_runs
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import nn

import longflow
from longflow.data import load
from longflow.objectives import ELBO
from longflow.training import Batches
from longflow.training.device import prepare

LATENT, WIDTH, BATCH, TURN = 20, 256, 100, 100


class Encoder(BaseEncoder):
    def __init__(self):
        super().__init__()
        self.hidden, self.last = nn.Linear(784, WIDTH), nn.Linear(WIDTH, 2 * LATENT)

    def forward(self, x):
        mean, log_scale = self.last(F.relu(self.hidden(x.flatten(1)))).chunk(2, 1)
        return ModelOutput(embedding=mean, log_covariance=2 * log_scale)


class Decoder(BaseDecoder):
    def __init__(self):
        super().__init__()
        self.hidden, self.last = nn.Linear(LATENT, WIDTH), nn.Linear(WIDTH, 784)

    def forward(self, z):
        return ModelOutput(reconstruction=torch.sigmoid(self.last(F.relu(self.hidden(z)))).reshape(-1, 1, 28, 28))


def pair(seed):
    """Return our model and the peer's, of the same weights."""
    torch.manual_seed(seed)
    ours = longflow.build("vae", shape=(1, 28, 28), levels=2, likelihood="bernoulli", latent=LATENT, width=WIDTH)
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=LATENT, reconstruction_loss="bce")
    peer = VAE(config, encoder=Encoder(), decoder=Decoder())
    first, _, last = ours.posterior.network.network.layers
    peer.encoder.hidden.load_state_dict(first.state_dict())
    peer.encoder.last.load_state_dict(last.state_dict())
    first, _, last = ours.observation.network.layers
    peer.decoder.hidden.load_state_dict(first.state_dict())
    peer.decoder.last.load_state_dict(last.state_dict())
    return ours, peer


def our_loss(model, x):
    ((_, loss),) = ELBO()(model, x, None, 0.0)
    return loss * (784 * torch.log(torch.tensor(2.0)))


def peers_loss(model, x):
    return model({"data": x}).loss


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    prepare("cpu", 1)
    data = load("mnist-binary")
    rows, test = torch.from_numpy(data.split("train")), torch.from_numpy(data.split("test")).float()
    for seed in flags.seeds:
        ours, peer = pair(seed)
        runs = {"longflow": (ours, our_loss), "pythae": (peer, peers_loss)}
        at_start = {name: [] for name in runs}
        for name, (model, loss) in runs.items():
            torch.manual_seed(7)
            at_start[name] = loss(model, test[:500]).item()
        batches = Batches(rows, None, BATCH, seed)
        optimisers = {name: torch.optim.Adam(model.parameters(), 1e-3) for name, (model, _) in runs.items()}
        spent = dict.fromkeys(runs, 0.0)
        for start in range(0, flags.steps, TURN):
            for name, (model, loss) in runs.items():
                torch.manual_seed(1000 * seed + start)
                clock = time.process_time()
                for step in range(start, start + TURN):
                    optimisers[name].zero_grad(set_to_none=True)
                    loss(model, batches(step)[0].float()).backward()
                    optimisers[name].step()
                spent[name] += time.process_time() - clock
        line = {
            "seed": seed,
            "steps": flags.steps,
            "pythae": pythae.__version__ if hasattr(pythae, "__version__") else "0.1.2",
            "torch": torch.__version__,
            "commit": commit_that_runs(),
            "nelbo_at_start": at_start,
            "ms_a_step": {name: 1000 * s / flags.steps for name, s in spent.items()},
            "ratio": spent["longflow"] / spent["pythae"],
            "test_nelbo": {},
        }
        for name, (model, loss) in runs.items():
            torch.manual_seed(11)
            with torch.no_grad():
                each = torch.stack([loss(model, part) for part in test.split(100)])
            line["test_nelbo"][name] = [each.mean().item(), (each.std() / len(each) ** 0.5).item()]
        with flags.out.open("a") as lines:
            lines.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
