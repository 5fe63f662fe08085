"""The volume of a matrix that is not square, against determinants, minors and pseudo-inverses."""

import itertools
import math

import pytest
import torch
from tolerances import close

from longflow.volume import log_volume, volume

SHAPES = [(3, 2), (2, 3), (4, 4), (5, 1), (1, 5), (1, 1), (7, 4)]


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def gram(b):
    """½ log det of BᵀB, or of BBᵀ for wide matrices."""
    return 0.5 * torch.linalg.slogdet(b.mT @ b if b.shape[-2] >= b.shape[-1] else b @ b.mT).logabsdet


@pytest.mark.parametrize("shape", SHAPES)
def test_is_half_the_log_determinant_of_the_gram_matrix_in_value_and_gradient(shape):
    b, weights = drawn(2, 3, *shape), torch.randn(2, 3, dtype=torch.float64)
    ours, theirs = log_volume(b), gram(b)
    assert ours.shape == (2, 3)
    close(ours, theirs, 1e-10)
    (found,) = torch.autograd.grad((weights * ours).sum(), b)
    (oracle,) = torch.autograd.grad((weights * theirs).sum(), b)
    close(found, oracle, 1e-10)
    close(found, weights[..., None, None] * torch.linalg.pinv(b.detach()).mT, 1e-10)


def test_second_derivatives():
    assert torch.autograd.gradgradcheck(log_volume, (drawn(4, 3, 2),))


def test_square_matrices_agree_with_slogdet():
    b = drawn(6, 4, 4)
    close(log_volume(b), torch.linalg.slogdet(b).logabsdet, 1e-12)
    close(volume(b), torch.linalg.det(b).abs(), 1e-12)


def test_squared_volume_is_the_sum_of_squared_minors():
    """Cauchy and Binet: det BᵀB = Σ over choices of k rows of (det of these rows)²."""
    b = drawn(5, 3)
    minors = [torch.linalg.det(b[list(rows)]) for rows in itertools.combinations(range(5), 3)]
    close(volume(b).square(), torch.stack(minors).square().sum(), 1e-11)
    close(volume(b.mT), volume(b), 1e-12)


def test_two_vectors_of_space_span_their_parallelogram():
    b = drawn(9, 3, 2)
    area = torch.linalg.vector_norm(torch.linalg.cross(b[..., 0], b[..., 1]), dim=-1)
    close(volume(b), area, 1e-12)


@pytest.mark.parametrize("entries", [3, 8, 784])
def test_float32_keeps_small_singular_values_that_the_gram_matrix_loses(entries):
    """Singular values 1, 1e-3, 1e-5: log-volume -18.42. Their squares are beyond float32's seven digits."""
    left, right = (torch.linalg.qr(torch.randn(200, n, 3, dtype=torch.float64)).Q for n in (entries, 3))
    b = (left * torch.tensor([1.0, 1e-3, 1e-5], dtype=torch.float64)) @ right.mT
    wanted = torch.full((200,), math.log(1e-8), dtype=torch.float64)
    close(log_volume(b), wanted, 1e-8)
    close(log_volume(b.float()).double(), wanted, 0.05)
    errors = (gram(b.float()).double() - wanted).abs()
    assert errors.median().item() > 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("wide", [False, True])
def test_dependent_columns_span_nothing(dtype, wide):
    b = torch.randn(50, 6, 3, dtype=torch.float64)
    b[:, :, 2] = 2 * b[:, :, 0] - b[:, :, 1]
    b[0] = 0
    whole = torch.randn(1, 6, 3, dtype=torch.float64)
    b = torch.cat((b, whole)).to(dtype)
    found = log_volume(b.mT if wide else b)
    assert bool((found[:-1] == -math.inf).all())
    assert bool((volume(b)[:-1] == 0).all())
    close(found[-1].double(), gram(whole)[0], 1e-5)


@pytest.mark.parametrize(("entries", "columns"), [(3, 2), (64, 16), (784, 3), (784, 64), (3072, 8)])
def test_a_repeated_column_spans_nothing_however_long_it_is(entries, columns):
    b = torch.randn(20, entries, columns)
    assert bool((log_volume(torch.cat((b[..., 1:], b[..., 1:2]), 2)) == -math.inf).all())
    assert bool(log_volume(b).isfinite().all())


def test_short_columns_are_not_dependent_ones():
    b = torch.diag(torch.tensor([1.0, 1e-20]))
    assert log_volume(b).item() == pytest.approx(math.log(1e-20))
    assert log_volume(torch.cat((b, b))).item() == pytest.approx(math.log(2e-20))


def test_no_columns_and_no_matrices():
    assert log_volume(torch.zeros(4, 3, 0)).tolist() == [0.0] * 4
    assert log_volume(torch.zeros(0, 3, 2)).shape == (0,)
