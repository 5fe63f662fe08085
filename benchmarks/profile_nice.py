"""Where a training step of NICE goes: python benchmarks/profile_nice.py [THREADS]

The paper's MNIST setting (784 dimensions, 4 couplings of 5 x 1000, batch 200) on random levels, no data set needed.
Prints milliseconds a step for each part, and the arithmetic's share: 3 x 38.3 MFLOP an image (forward and backward).
"""

import sys
import time

import torch

from longflow.models import assemble
from longflow.objectives import MaximumLikelihood
from longflow.training import Batches, Recipe, State, train

BATCH, STEPS = 200, 25


def timed(action, repeats=STEPS):
    action()
    start = time.perf_counter()
    for _ in range(repeats):
        action()
    return (time.perf_counter() - start) / repeats * 1e3


def main(threads):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = {"model": "nice", "options": {}, "shape": [1, 28, 28], "preprocess": "unit", "levels": 256}
    recipe = Recipe(batch=BATCH, ema=0.0, warmup=0, schedule="constant")
    objective = MaximumLikelihood()
    state = State(assemble(config), objective, recipe)
    rows = torch.randint(256, (2000, 1, 28, 28), dtype=torch.uint8)
    batches = Batches(rows, None, BATCH, seed=0)
    x = batches(0)[0]
    linear = torch.nn.Linear(1000, 1000)
    h = torch.randn(BATCH, 1000, requires_grad=True)

    def backward():
        ((_, loss),) = objective(state.model, x, None)
        loss.backward()

    square = timed(lambda: linear(h).sum().backward())
    optimiser = state.optimisers[""]
    whole = train(state, objective, batches, recipe, 10**6, batches.steps_per_epoch)
    step = timed(lambda: next(whole))
    both = timed(backward)
    print(f"threads {threads}, torch {torch.__version__}")
    print(f"whole step                 {step:7.1f} ms   {BATCH / step * 1e3:6.0f} images/s")
    print(f"  forward and backward     {both:7.1f} ms")
    print(f"  Adam on 19.2 M weights   {timed(optimiser.step):7.1f} ms")
    clip = timed(lambda: torch.nn.utils.clip_grad_norm_(state.model.parameters(), 50.0))
    print(f"  norm of the gradient     {clip:7.1f} ms")
    print(f"  the batch, as floats     {timed(lambda: batches(1)):7.1f} ms")
    layer, network = 3 * 2e6 * BATCH / square / 1e6, 3 * 38.3e6 * BATCH / step / 1e6
    print(f"one 1000 x 1000 layer: {layer:.0f} GFLOP/s; the step: {network:.0f} GFLOP/s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
