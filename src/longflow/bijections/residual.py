"""The invertible residual block: a residual network whose branch is a contraction."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from longflow.bijections.bijection import Example, no_log_det
from longflow.bijections.estimated import EXACT_DIMS, Estimated, outside_inference
from longflow.bijections.fixed_point import FixedPoint, solve
from longflow.bijections.series import Series, estimated, jacobian, log_det_of
from longflow.errors import UsageError
from longflow.nets.contraction import Branch, Contraction, DenseContraction, conv_layers, linear_layers
from longflow.nets.lipschitz import CLipSwish, LipschitzLayer, LipSwish
from longflow.values import log_dets_wanted

EVALUATION = Series(terms=20)


class Residual(Estimated):
    """z = x + g(x; context) with a contraction g, slope at most L < 1 (Behrmann et al. 2019).

    The inverse iterates x ← z - g(x) (`FixedPoint`), and is differentiated implicitly, once; it raises InversionError,
    naming the rows, where it does not converge. log|det ∂z/∂x| = log det(I + ∂g/∂x) is

    - in evaluation mode, exact by the Jacobian for events of at most `exact_dims` numbers; else an estimate by
      `evaluation`, drawn from torch's generator, new at each call;
    - in training mode, exact for events of at most 3 numbers, else an estimate by `training`, unbiased in value and
      gradient, unless its roulette is "none".

    Within `values_only` it is not computed. `estimates` says whether evaluation is by an estimate, for events of `dims`
    numbers. L is the branch's `lipschitz`, in ‖·‖₂.
    """

    def __init__(
        self,
        branch: Branch,
        dims: int,
        *,
        training: Series = Series(),  # noqa: B008
        evaluation: Series = EVALUATION,
        exact_dims: int = EXACT_DIMS,
        inversion: FixedPoint = FixedPoint(),  # noqa: B008
    ) -> None:
        super().__init__()
        slope = getattr(branch, "lipschitz", None)
        if not isinstance(slope, float) or not 0 < slope < 1:
            raise UsageError(f"a residual block expects a branch with a number 0 < lipschitz < 1; {slope} came")
        self.branch, self.slope, self.dims = branch, slope, dims
        self.series, self.evaluation = training, evaluation
        self.exact_dims = exact_dims
        self.inversion = inversion

    def account(self) -> dict[str, Any]:
        if not self.estimates:
            return {"exact": True}
        how = self.evaluation
        return {
            "exact": False,
            "terms": how.terms,
            "roulette": how.roulette,
            "rate": how.rate,
            "probe": how.probe,
            "probes": how.probes,
            "bias_bound": how.bias_bound(self.dims, self.slope),
        }

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        change, log_det = self._change(x, context)
        return x + change, log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = self.root(z.detach(), context)[0]
        if torch.is_grad_enabled():
            x = self._attached(x, z, context)
        return x, -self._change(x, context)[1] if log_dets_wanted() else no_log_det(x)

    def layers(self) -> list[LipschitzLayer]:
        """Return the branch's linear layers, in their order."""
        return [m for m in self.branch.modules() if isinstance(m, LipschitzLayer)]

    def root(self, z: Tensor, context: Tensor | None = None, how: FixedPoint | None = None) -> tuple[Tensor, Tensor]:
        """Return f⁻¹(z), without a gradient, and the iterations that each row took, (B,)."""

        def step(x: Tensor, rows: Tensor) -> Tensor:
            return z[rows] - self._branch(x, None if context is None else context[rows])

        with torch.no_grad():
            return solve(step, z - self._branch(z, context), z, self.slope, how or self.inversion)

    def _branch(self, x: Tensor, context: Tensor | None) -> Tensor:
        own = next((p.dtype for p in self.branch.parameters()), x.dtype)
        return self.branch(x.to(own), context).to(x.dtype)

    def _change(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return g(x) and the log-determinant."""
        if not log_dets_wanted():
            return self._branch(x, context), no_log_det(x)
        return outside_inference(self._differentiated, x, context)

    def _differentiated(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.by_probes:
            series = self.series if self.training else self.evaluation
            return estimated(self._branch, x, context, self.branch, series)
        value, jacobians = jacobian(lambda point: self._branch(point, context), x)
        return value, log_det_of(jacobians)

    def _attached(self, x: Tensor, z: Tensor, context: Tensor | None) -> Tensor:
        """Return x with the gradient of f⁻¹ by the implicit function theorem: dx = (I + J)⁻¹ (dz - dg)."""
        rest = z - x - self._branch(x, context)
        if not rest.requires_grad:
            return x
        if self.dims <= self.exact_dims:
            jacobians = jacobian(lambda point: self._branch(point, context), x)[1].detach()
            one = torch.eye(jacobians.shape[-1], dtype=x.dtype, device=x.device)
            return x + torch.linalg.solve(one + jacobians, rest.flatten(1)[..., None]).reshape(x.shape)
        rest.register_hook(lambda grad: self._solved(grad, x, context))
        return x + rest

    def _solved(self, grad: Tensor | None, x: Tensor, context: Tensor | None) -> Tensor | None:
        """Return (I + Jᵀ)⁻¹ grad by the same iteration, each row relative to its length: Jᵀ contracts as g does."""
        if grad is None:
            return None
        length = torch.linalg.vector_norm(grad.flatten(1), dim=1).reshape(-1, *[1] * (grad.dim() - 1))
        length = torch.where(length > 0, length, torch.ones_like(length))
        unit = grad / length
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            value = self._branch(point, context)

        def step(u: Tensor, rows: Tensor) -> Tensor:
            whole = torch.zeros_like(unit).index_copy(0, rows, u)
            return (unit - torch.autograd.grad(value, point, whole, retain_graph=True)[0])[rows]

        how = replace(self.inversion, tolerance=None)
        return length * solve(step, unit, unit, self.slope, how)[0]

    def extra_repr(self) -> str:
        return f"slope<={self.slope:.4g}, exact_dims={self.exact_dims}"

    @classmethod
    def examples(cls) -> Iterator[Example]:
        def make(features: int, **options: Any) -> Contraction:
            return Contraction(linear_layers(0.9), features, width=7, depth=2, activation=LipSwish, **options)

        yield Example(cls(make(3), 3).eval(), (3,))
        yield Example(cls(make(2, context=2, preactivate=True), 2).eval(), (2,), (2,))
        convs = Contraction(conv_layers(0.8, (3, 2)), 2, width=5, depth=2, activation=LipSwish)
        yield Example(cls(convs, 12).eval(), (2, 3, 2))
        dense = DenseContraction(linear_layers(0.9), 3, growth=4, depth=2, activation=CLipSwish, context=1)
        yield Example(cls(dense, 3).eval(), (3,), (1,))
