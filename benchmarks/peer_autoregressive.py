"""The same numbers as the peers: their weights in our layers, and log_prob compared.

    PYTHONPATH=src PEER_ENVIRONMENT/bin/python benchmarks/peer_autoregressive.py [--out FILE]

In an environment with torch, zuko and nflows. Masks agree where the peers' hidden units have our degrees, in another
order: both share out degrees in equal numbers when their number divides that of the units (zuko: 0 to D - 1 with a
context, 1 to D - 1 without; nflows: 1 to D - 1). So widths are such multiples, units are sorted by the degree that the
peer's own mask shows, and the masks are compared before the weights are copied. Other differences are of form only:

- zuko's layers of reversed order are ours under `Reverse`; its log-scale is a / (1 + |a / log 0.001|), our `SoftClip`;
  it returns parameters feature by feature, we parameter by parameter.
- zuko's spline softly clips its parameters, which `Clipped` does behind our network; it has no least width and no least
  slope, so ours are set to almost none.
- nflows has the scale softplus(u) + 0.001 and reverses before each layer. Without a context only: there its first
  feature does not see one.

Prints a line for each, and appends it to FILE: the largest difference of log_prob over 1,000 rows of standard normal
events, in nats and relative to it, in float64 and in float32, beside that of the peer's own float32 from its float64.
"""

import argparse
import json
import math
from importlib.metadata import version
from pathlib import Path

import torch
import torch.nn.functional as F
import zuko
from equal_time import commit_that_runs
from nflows.flows.autoregressive import MaskedAutoregressiveFlow
from torch import nn

from longflow.bijections import Affine, Autoregressive, Chain, RationalQuadratic, Reverse, SoftClip, Under
from longflow.distributions import Flow, StandardNormal
from longflow.nets import MADE, ResMADE

D, CONTEXT, LAYERS, ROWS = 9, 3, 3, 1000
LOG_SLOPE = math.log(1e-3)
ALMOST_NONE = 1e-30


class SoftplusScale(nn.Module):
    """log(softplus(u) + 0.001): nflows' scale."""

    def forward(self, u):
        """Return the log-scale."""
        return (F.softplus(u) + 1e-3).log()


class Clipped(nn.Module):
    """A conditioner behind which a spline's parameters are clipped as zuko does: sizes twice as much as slopes."""

    def __init__(self, net, bins):
        super().__init__()
        self.net, self.sizes = net, 2 * bins

    def forward(self, x, context=None):
        """Return the parameters."""
        theta = self.net(x, context)
        sizes, slopes = theta.tensor_split([self.sizes * D], 1)
        return torch.cat((sizes / (1 + (2 * sizes / LOG_SLOPE).abs()), slopes / (1 + (slopes / LOG_SLOPE).abs())), 1)


def copy(layer, theirs, columns, rows):
    """Copy a masked layer, its columns and (copies of) rows in the given orders; the masks must be the same."""
    weight, mask = theirs.weight[rows][..., columns], theirs.mask[rows][..., columns]
    assert torch.equal(mask.to(layer.mask), layer.mask.expand(mask.shape)), "the masks differ"
    layer.weight.copy_(weight)
    layer.bias.copy_(theirs.bias[rows])


def rows_of(order, per_feature, picks):
    """Return the peer's output rows, (k, D): feature by feature there, of features in `order`."""
    return torch.tensor([[f * per_feature + p for f in order] for p in picks])


@torch.no_grad()
def from_zuko(net, theirs, order, picks):
    """Copy a zuko MLP into our MADE; `order` lists features by rank, `picks` its parameters in our order."""
    layers = [m for m in theirs if isinstance(m, nn.Linear)]
    units = torch.tensor(order[:-1])
    for k, (mine, layer) in enumerate(zip([net.first, *net.layers], layers, strict=False)):
        known = layers[0].mask[:, :D].sum(1)
        sorted_units = known.argsort(stable=True)
        assert known[sorted_units].tolist() == net.degrees
        copy(mine, layer, units, sorted_units[None])
        if k == 0 and net.given is not None:
            net.given.weight.copy_(layer.weight[sorted_units][:, D:])
        units = sorted_units
    copy(net.last, layers[-1], units, rows_of(order, len(picks), picks))


@torch.no_grad()
def from_nflows(net, theirs, picks):
    """Copy an nflows MADE, plain or residual, into ours."""
    units = theirs.initial_layer.degrees.argsort(stable=True)
    assert theirs.initial_layer.degrees[units].tolist() == net.degrees
    copy(net.first, theirs.initial_layer, torch.arange(D - 1), units[None])
    if isinstance(net, MADE):
        pairs = [(mine, block.linear) for mine, block in zip(net.layers, theirs.blocks, strict=True)]
    else:
        both = zip(net.inner, net.outer, theirs.blocks, strict=True)
        pairs = [pair for i, o, b in both for pair in zip((i, o), b.linear_layers, strict=True)]
    for mine, layer in pairs:
        copy(mine, layer, units, units[None])
    copy(net.last, theirs.final_layer, units, rows_of(range(D), len(picks), picks))


def like_zuko(theirs, context, hidden, per_feature, picks, transform, wrap=lambda net: net):
    """Return our flow of a zuko flow's layers, whose order alternates."""
    parts = []
    for k, layer in enumerate(theirs.transform.transforms):
        net = MADE(D, per_feature, hidden=hidden, depth=2, context=context)
        order = list(range(D))[:: -1 if k % 2 else 1]
        from_zuko(net, layer.hyper, order, picks)
        step = Autoregressive(transform(), wrap(net))
        parts.append(Under(Reverse(), step) if k % 2 else step)
    return Flow(Chain(*parts), StandardNormal((D,)), (context,) if context else None)


def like_nflows(theirs, hidden, *, residual):
    """Return our flow of an nflows MAF's layers."""
    parts = []
    for layer in [t for t in theirs._transform._transforms if hasattr(t, "autoregressive_net")]:
        net = ResMADE(D, 2, hidden=hidden, blocks=2) if residual else MADE(D, 2, hidden=hidden, depth=3)
        from_nflows(net, layer.autoregressive_net, (0, 1))
        parts += [Reverse(), Autoregressive(Affine(SoftplusScale()), net)]
    return Flow(Chain(*parts), StandardNormal((D,)))


def stir(flow):
    """Move the weights, so that no layer is near its start."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in flow.parameters():
            p += 0.1 * torch.randn_like(p)
    return flow


def cases():
    """Yield (name, our flow, the peer's log_prob of (x, context), the peer's module, features of the context)."""
    for context in (0, CONTEXT):
        hidden = 8 * (D if context else D - 1)
        options = {"transforms": LAYERS, "hidden_features": (hidden, hidden)}
        theirs = stir(zuko.flows.MAF(D, context, **options))
        affine = lambda: Affine(SoftClip(-LOG_SLOPE))  # noqa: E731
        ours = like_zuko(theirs, context, hidden, 2, (1, 0), affine)
        yield f"zuko MAF, context {context}", ours, lambda x, c, m=theirs: m(c).log_prob(x), theirs, context
        theirs = stir(zuko.flows.NSF(D, context, bins=8, **options))
        spline = lambda: RationalQuadratic(8, bound=5.0, slope=ALMOST_NONE, floor=0.0)  # noqa: E731
        ours = like_zuko(theirs, context, hidden, 23, range(23), spline, lambda net: Clipped(net, 8))
        yield f"zuko NSF, context {context}", ours, lambda x, c, m=theirs: m(c).log_prob(x), theirs, context
    for residual in (False, True):
        hidden = 8 * (D - 1)
        theirs = stir(MaskedAutoregressiveFlow(D, hidden, LAYERS, 2, use_residual_blocks=residual))
        name = f"nflows MAF, {'residual' if residual else 'plain'}"
        yield name, like_nflows(theirs, hidden, residual=residual), lambda x, c, m=theirs: m.log_prob(x), theirs, 0


@torch.no_grad()
def compare(name, ours, theirs, module, context):
    """Return the line of one case."""
    torch.manual_seed(0)
    x, c = torch.randn(ROWS, D).double(), torch.randn(ROWS, context).double() if context else None
    found = {}
    for dtype in (torch.float64, torch.float32):  # The wide one first: nflows keeps a constant in float64.
        module.to(dtype)
        given = None if c is None else c.to(dtype)
        found[dtype] = ours.to(dtype).log_prob(x.to(dtype), given), theirs(x.to(dtype), given)
    line = {"case": name, "features": D, "layers": LAYERS, "rows": ROWS, "mean_log_prob": found[dtype][1].mean().item()}
    for dtype, (mine, other) in found.items():
        apart, kind = (mine - other).abs(), str(dtype)[6:]
        line[f"max_abs_{kind}"] = apart.max().item()
        line[f"max_relative_{kind}"] = (apart / other.abs()).max().item()
    line["peer_float32_from_its_float64"] = (found[torch.float32][1] - found[torch.float64][1]).abs().max().item()
    return line


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    versions = {name: version(name) for name in ("torch", "zuko", "nflows")}
    commit = commit_that_runs()
    for case in cases():
        line = {**compare(*case), **versions, "commit": commit}
        print(json.dumps(line))
        if flags.out:
            with flags.out.open("a") as lines:
                lines.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
