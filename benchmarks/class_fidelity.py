"""Do digits drawn by class belong to it? A logistic regression on the pixels of real ones says how many.

    longflow train glow --preset digits --preprocess logit --classes 10 --steps 600 --threads 1 --out RUN
    python benchmarks/class_fidelity.py RUN [RUN ...]

Prints, for each run and temperature, the share of 1,000 draws (100 of each class, seed 0) that the regression gives the
class asked for, and its share on real test digits.
"""

import sys

import torch
from sklearn.linear_model import LogisticRegression

import longflow
from longflow.commands.draw import draw
from longflow.data import load

DRAWS = 1000


def main():
    digits = load("digits")
    assert digits.labels is not None
    judge = LogisticRegression(max_iter=3000).fit(pixels(digits.split("train")), digits.labels["train"])
    print(f"real test digits: {judge.score(pixels(digits.split('test')), digits.labels['test']):.3f}")
    classes = torch.arange(DRAWS) % 10
    for run in sys.argv[1:]:
        model = longflow.load(run)
        for temperature in (0.0, 0.7, 1.0):
            drawn = draw(model, DRAWS, temperature, 0, classes)
            print(f"{run} at T = {temperature}: {judge.score(pixels(drawn), classes.numpy()):.3f}")


def pixels(levels):
    return levels.reshape(len(levels), -1) / 16.0


if __name__ == "__main__":
    main()
