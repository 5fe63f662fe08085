"""Densities in the plane that one can see, as in FFJORD (Grathwohl et al., 2019); all lie about within [-4, 4]²."""

from collections.abc import Callable

import numpy as np

from longflow.data.dataset import Dataset

SIZES = {"train": 10_000, "validation": 2_000, "test": 5_000}


def two_moons() -> Dataset:
    """Draw t ~ U(0, π); (cos t, sin t) or (1 - cos t, 1/2 - sin t); plus N(0, 0.1²); times 2, minus (1, 0.2)."""
    return _drawn("two-moons", _two_moons)


def rings() -> Dataset:
    """Draw a point of the circle of radius 3/4, 3/2, 9/4 or 3, plus N(0, 0.08²)."""
    return _drawn("rings", _rings)


def checkerboard() -> Dataset:
    """Draw from the uniform density on the 8 dark squares, of side 2, of a 4 by 4 board on [-4, 4]²."""
    return _drawn("checkerboard", _checkerboard)


def pinwheel() -> Dataset:
    """Draw r ~ N(1, 0.3²), s ~ N(0, 0.1²), arm k of 5; turn 2 (r, s) by -(2πk/5 + e^r/4) (Johnson et al., 2016)."""
    return _drawn("pinwheel", _pinwheel)


def eight_gaussians() -> Dataset:
    """Draw from 8 equal Gaussians of deviation 1/√8, evenly on the circle of radius 4/√2."""
    return _drawn("eight-gaussians", _eight_gaussians)


def _drawn(name: str, draw: Callable[[int, np.random.Generator], np.ndarray]) -> Dataset:
    """Cut independent draws (N, 2), always the same ones, into splits."""
    points = draw(sum(SIZES.values()), np.random.default_rng(0)).astype(np.float32)
    parts = np.split(points, np.cumsum(list(SIZES.values()))[:-1])
    return Dataset(name, dict(zip(SIZES, parts, strict=True)), levels=None)


def _two_moons(n: int, rng: np.random.Generator) -> np.ndarray:
    t, lower = rng.uniform(0, np.pi, n), rng.integers(2, size=n)
    moon = np.where(lower, [1 - np.cos(t), 0.5 - np.sin(t)], [np.cos(t), np.sin(t)]).T
    return 2 * (moon + rng.normal(scale=0.1, size=(n, 2))) - [1, 0.2]


def _rings(n: int, rng: np.random.Generator) -> np.ndarray:
    radius, angle = 0.75 * rng.integers(1, 5, n), rng.uniform(0, 2 * np.pi, n)
    return _polar(radius, angle) + rng.normal(scale=0.08, size=(n, 2))


def _checkerboard(n: int, rng: np.random.Generator) -> np.ndarray:
    column, pair = rng.integers(4, size=n), rng.integers(2, size=n)
    corner = np.stack([column, 2 * pair + column % 2], axis=1)
    return 2 * (corner + rng.uniform(size=(n, 2))) - 4


def _pinwheel(n: int, rng: np.random.Generator) -> np.ndarray:
    r, s = rng.normal(1, 0.3, n), rng.normal(0, 0.1, n)
    angle = 2 * np.pi * rng.integers(5, size=n) / 5 + np.exp(r) / 4
    arm = 2 * (r + 1j * s) * np.exp(-1j * angle)
    return np.stack([arm.real, arm.imag], axis=1)


def _eight_gaussians(n: int, rng: np.random.Generator) -> np.ndarray:
    centre = _polar(np.full(n, 4.0), np.pi / 4 * rng.integers(8, size=n))
    return (centre + rng.normal(scale=0.5, size=(n, 2))) / np.sqrt(2)


def _polar(radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
