"""The same curves as the peers' splines where the parameters are, and round trips where they are wild.

    PYTHONPATH=src PEER_ENVIRONMENT/bin/python benchmarks/peer_splines.py [--out FILE]

In an environment with torch, zuko and nflows. Each has its own form of the parameters, which is mapped exactly:

- nflows' rational-quadratic slopes are softplus(u) + 0.001: ours get the logarithm of that, and a least slope of 1e-30,
  at which ours are eᵗ. Least widths and heights are 0.001 there and here.
- zuko clips logits softly and has no least width: ours get its clipped numbers.
- nflows' quadratic spline is given our slopes at all knots, in the form that it normalises: with its own slopes at the
  ends, meant to be 1, they are not (`nflows_slope_at_the_ends`), so that its log-slope jumps there.
- nflows' linear spline has no least slope; ours has 1e-30. Its inverse moves its last knot by 1e-6, and is not compared
  in the last bin.

Prints a line for each, and appends it to FILE: the largest difference of values and of log-slopes over points on both
sides of the bound, forward and inverse, for parameters of deviation 1; in float32 beside what each differs from itself
in float64. Then |x' - x| after forward and inverse in float32 of 100,000 points, 32 bins and parameters of deviation 4.
"""

import argparse
import json
import math
import sys
from importlib.metadata import version
from pathlib import Path

import torch
import torch.nn.functional as F
from equal_time import commit_that_runs
from nflows.transforms.splines import linear, quadratic, rational_quadratic
from zuko.transforms import MonotonicRQSTransform

from longflow.bijections import LinearSpline, QuadraticSpline, RationalQuadratic

K, B, ROWS, ALMOST_NONE = 8, 5.0, 20000, 1e-30
LOG_SLOPE = math.log(1e-3)


def within(call, x):
    """Apply a map of [-B, B] there, and the identity outside."""
    inside = x.abs() <= B
    value, log_slope = call(x.clamp(-B, B))
    return torch.where(inside, value, x), torch.where(inside, log_slope, 0)


def nflows_rational(theta, bins=K):
    widths, heights, u = theta.T.tensor_split([bins, 2 * bins])
    mapped = torch.cat((widths, heights, (F.softplus(u) + 1e-3).log()))

    def call(x, inverse):
        spline = rational_quadratic.unconstrained_rational_quadratic_spline
        return spline(x, widths.T, heights.T, u.T, inverse=inverse, tail_bound=B)

    return RationalQuadratic(bins, bound=B, slope=ALMOST_NONE), mapped.T, call


def zuko_rational(theta, bins=K):
    sizes, slopes = theta.tensor_split([2 * bins], 1)
    mapped = torch.cat((sizes / (1 + (2 * sizes / LOG_SLOPE).abs()), slopes / (1 + (slopes / LOG_SLOPE).abs())), 1)
    spline = MonotonicRQSTransform(theta[:, :bins], theta[:, bins : 2 * bins], theta[:, 2 * bins :], bound=B)

    def call(x, inverse):
        if not inverse:
            return spline.call_and_ladj(x)
        y = spline._inverse(x)
        return y, -spline.call_and_ladj(y)[1]

    return RationalQuadratic(bins, bound=B, slope=ALMOST_NONE, floor=0.0), mapped, call


def nflows_quadratic(theta):
    ours = QuadraticSpline(K, bound=B)
    slopes = ours.table(theta.T[:, :, None])[1][:, :, 0].T
    heights = (slopes - 1e-3).expm1().log()
    ends = {"left": -B, "right": B, "bottom": -B, "top": B, "min_bin_height": 0.0}

    def call(x, inverse):
        return within(lambda p: quadratic.quadratic_spline(p, theta[:, :K], heights, inverse=inverse, **ends), x)

    return ours, theta, call


def nflows_linear(theta):
    def call(x, inverse):
        return linear.unconstrained_linear_spline(x, theta, inverse=inverse, tail_bound=B)

    return LinearSpline(K, bound=B, slope=ALMOST_NONE), theta, call


CASES = {
    "nflows rational-quadratic": (nflows_rational, 3 * K - 1),
    "zuko rational-quadratic": (zuko_rational, 3 * K - 1),
    "nflows quadratic": (nflows_quadratic, 2 * K - 1),
    "nflows linear": (nflows_linear, K),
}


def compare(name, make, parameters):
    """Return the line of one case."""
    torch.manual_seed(0)
    x, theta = 1.2 * B * (2 * torch.rand(ROWS).double() - 1), torch.randn(ROWS, parameters).double()
    line = {"case": name, "bins": K, "bound": B, "points": ROWS}
    found = {dtype: answers(make, x.to(dtype), theta.to(dtype)) for dtype in (torch.float64, torch.float32)}
    for direction in ("forward", "inverse"):
        single, double = found[torch.float32][direction], found[torch.float64][direction]
        compared = torch.ones_like(x, dtype=torch.bool)
        if (name, direction) == ("nflows linear", "inverse"):
            compared = (double[0][0] < B * (1 - 2 / K)) | (x > B)
        for k, part in enumerate(("value", "log_slope")):
            (ours, theirs), (mine, other) = [[side[k][compared] for side in pair] for pair in (double, single)]
            line[f"{direction}_{part}"] = {
                "float64": apart(ours, theirs),
                "float32": apart(mine, other),
                "float32_of_ours": apart(mine, ours),
                "float32_of_the_peer": apart(other, theirs),
            }
    return line


def answers(make, x, theta):
    """Return, for each direction, value and log-slope of ours and of theirs."""
    ours, mapped, theirs = make(theta)
    found = {}
    for direction, step in (("forward", ours), ("inverse", ours.inverse)):
        value, log_slope = step(x[:, None], mapped)
        found[direction] = (value[:, 0], log_slope), theirs(x, direction == "inverse")
    return found


def apart(a, b):
    return float(f"{(a.double() - b.double()).abs().max().item():.3g}")


def ends_of_nflows_quadratic():
    """Return the least and the largest slope at the ends of nflows' quadratic spline, which are meant to be 1."""
    torch.manual_seed(0)
    widths, heights = torch.randn(ROWS, K).double(), torch.randn(ROWS, K - 1).double()
    near = torch.full((ROWS,), B - 1e-9).double()
    log_slope = quadratic.unconstrained_quadratic_spline(near, widths, heights, tail_bound=B)[1]
    return [log_slope.exp().min().item(), log_slope.exp().max().item()]


def wild(name, make):
    """Return the line of round trips of 32 bins and parameters of deviation 4, in float32."""
    torch.manual_seed(0)
    bins, points = 32, 100_000
    x, theta = torch.randn(points), 4 * torch.randn(points, 3 * bins - 1)
    forward, inverse = make(theta, bins)
    line = {"case": f"{name}, 32 bins, parameters of deviation 4, float32", "points": points}
    try:
        errors = (inverse(forward(x)) - x).abs()
        return {**line, "largest": errors.max().item(), "share_above_1e-5": (errors > 1e-5).double().mean().item()}
    except AssertionError:
        return {**line, "error": "AssertionError: a discriminant below 0"}


def ours_of(slope):
    def make(theta, bins):
        spline = RationalQuadratic(bins, bound=B, slope=slope)
        return lambda x: spline(x[:, None], theta)[0][:, 0], lambda z: spline.inverse(z[:, None], theta)[0][:, 0]

    return make


def peer_of(maker):
    def make(theta, bins):
        call = maker(theta, bins)[2]
        return lambda x: call(x, False)[0], lambda z: call(z, True)[0]

    return make


WILD = {
    "longflow RationalQuadratic(slope=1/3)": ours_of(1 / 3),
    "longflow RationalQuadratic(slope=0.1)": ours_of(0.1),
    "longflow RationalQuadratic(slope=0.01), the default": ours_of(0.01),
    "zuko": peer_of(zuko_rational),
    "nflows": peer_of(nflows_rational),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    lines = [compare(name, *case) for name, case in CASES.items()]
    lines[2]["nflows_slope_at_the_ends"] = ends_of_nflows_quadratic()
    lines += [wild(name, make) for name, make in WILD.items()]
    told = {name: version(name) for name in ("torch", "zuko", "nflows")}
    told |= {"commit": commit_that_runs(), "command": " ".join(["python", *sys.argv])}
    for line in lines:
        print(json.dumps({**line, **told}))
        if flags.out:
            with flags.out.open("a") as file:
                file.write(json.dumps({**line, **told}) + "\n")


if __name__ == "__main__":
    main()
