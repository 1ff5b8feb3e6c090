"""Find multipliers by a first-order primal-dual method.

For every group n let M be the matrix of x[e] = "e is in n" and X[e, f] = "both are",
bordered by 1 and x. It is positive semidefinite, M·u = 0 for u = (−slots, 1, …, 1),
and M·q <= 0 for q = (−limit, pairs of e) under a cap. The method steps in M, projects
it on what is linear (X >= 0, Σ_n x = 1), steps in the multiplier of M's cone, and
moves the prices of links to where the relaxed loads are largest (Condat 2013, Vũ
2013, with multiplicative weights for the prices). Any state it passes gives a valid
bound; the best is kept. Axes: N groups, M places of M (0, then the experts).
"""

from dataclasses import dataclass

import numpy as np

from planner import clock
from planner.arrays import FloatArray
from planner.formulation.gram.lines import sum_lines
from planner.formulation.gram.problem import Nets
from planner.formulation.gram.triangles import raise_prices, squared_norm

SOFT = 0.1
"""Half the width of the mixture of two lines around a whole number."""
_PRICE_STEP = 2.0
_REACH = 2.0
"""Longest step in M: this times the size of M over that of its gradient."""
_CLOSE = 0.003
_EVERY = 25


@dataclass(frozen=True, kw_only=True, eq=False)
class Multipliers:
    """What proves a bound.

    Attributes
    ----------
    price_A
        By leg the shares of links, which add up to 1.
    guide_EE
        Where lines are chosen: how much experts share a group, diagonal 1.
    cone_NMM
        Multiplier of M's cone: positive semidefinite on what is orthogonal to u.
    cap_NM
        Multipliers of M·q <= 0; zeros without caps.
    triangle_FEE
        Multipliers of triangle rows.
    value
        The bound in the unit of the objective, in doubles.
    """

    price_A: tuple[FloatArray, FloatArray]
    guide_EE: FloatArray
    cone_NMM: FloatArray
    cap_NM: FloatArray
    triangle_FEE: FloatArray
    value: float


class Relaxation:
    """Loads and gradients of one layer's relaxation, scaled by ``unit``."""

    def __init__(self, nets: Nets) -> None:
        self.nets = nets
        self.experts, self.count = nets.pairs_E.size, nets.slots_N.size
        gpus = nets.visits.load_ASN[0].shape[1]
        self.alone_SE = np.zeros((gpus, self.experts))
        self.pair_SEE = np.zeros((gpus, self.experts, self.experts))
        self.legs = [load.reshape(len(load), -1) for load in nets.visits.load_ASN]
        ones = np.ones((self.count, self.experts))
        self.u_NM = np.concatenate([-nets.slots_N[:, None], ones], axis=1)
        self.q_NM = np.zeros_like(self.u_NM)
        if nets.limit_N is not None:
            pairs_NE = ones * nets.pairs_E
            self.q_NM = np.concatenate([-nets.limit_N[:, None], pairs_NE], axis=1)
        self.q_norm_N = np.maximum(np.linalg.norm(self.q_NM, axis=1), 1.0)
        self.q_NM /= self.q_norm_N[:, None]

    def choose_lines(self, guide_EE: FloatArray) -> None:
        """Choose the lines of all tokens at a guide."""
        nets = self.nets
        sums = (self.alone_SE, self.pair_SEE)
        sum_lines(nets.experts_TK, nets.source_T, guide_EE, SOFT, sums)

    def visit_prices(self, price_A: tuple[FloatArray, FloatArray]) -> FloatArray:
        """Return what a visit [S, N] costs at these prices of links."""
        cells = sum(
            price @ load_AV for price, load_AV in zip(price_A, self.legs, strict=True)
        )
        return np.asarray(cells).reshape(-1, self.count)

    def costs(self, visit_SN: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return what x [N, E] and X [N, E, E] cost at these prices of visits."""
        flat_SX = self.pair_SEE.reshape(len(self.pair_SEE), -1)
        pair_NEE = -(visit_SN.T @ flat_SX).reshape(-1, self.experts, self.experts)
        pair_NEE = (pair_NEE + pair_NEE.transpose(0, 2, 1)) / 2
        return visit_SN.T @ self.alone_SE, pair_NEE

    def link_loads(self, matrix_NMM: FloatArray) -> list[FloatArray]:
        """Return by leg the loads of links in the relaxation."""
        inner_NEE = matrix_NMM[:, 1:, 1:].copy()
        diagonal = np.arange(self.experts)
        held_NE = inner_NEE[:, diagonal, diagonal]
        inner_NEE[:, diagonal, diagonal] = 0.0
        flat_SX = self.pair_SEE.reshape(len(self.pair_SEE), -1)
        visits_SN = self.alone_SE @ held_NE.T
        visits_SN -= flat_SX @ inner_NEE.reshape(self.count, -1).T
        return [load_AV @ visits_SN.ravel() for load_AV in self.legs]

    def bound_at(
        self, visit_SN: FloatArray, dual_NMM: FloatArray, pair_EE: FloatArray
    ) -> float:
        """Return the closed form for dual matrices that are >= 0 on every legal M.

        ``pair_EE`` is what triangle rows put on pairs; the value is without their
        right sides.
        """
        held_NE, pair_NEE = self.costs(visit_SN)
        left_NEE = pair_NEE + pair_EE - dual_NMM[:, 1:, 1:]
        diagonal = np.arange(self.experts)
        left_NEE[:, diagonal, diagonal] = 0.0
        gain_NE = held_NE - 2 * dual_NMM[:, 0, 1:]
        gain_NE -= dual_NMM[:, 1 + diagonal, 1 + diagonal]
        gain_NE += np.minimum(left_NEE, 0.0).sum(axis=2)
        return float(gain_NE.min(axis=0).sum() - dual_NMM[:, 0, 0].sum())


class _State:
    """The iterates of one layer."""

    def __init__(self, relaxation: Relaxation) -> None:
        self._of = relaxation
        nets, experts = relaxation.nets, relaxation.experts
        share_N = nets.slots_N / nets.slots_N.sum()
        held_NE = np.repeat(share_N[:, None], experts, axis=1)
        pairs = (nets.slots_N - 1) / max(1, experts - 1) * share_N
        inner_NEE = np.repeat(pairs, experts**2).reshape(-1, experts, experts)
        self.matrix_NMM = _matrix(held_NE, inner_NEE)
        self._before_NMM = self.matrix_NMM
        self.cone_NMM = np.zeros_like(self.matrix_NMM)
        self.cap_NM = np.zeros(relaxation.u_NM.shape)
        self.price_A = [np.full(len(leg), 1 / len(leg)) for leg in relaxation.legs]
        relaxation.choose_lines(self.guide_EE)
        loads = relaxation.link_loads(self.matrix_NMM)
        self._scale = max(sum(float(load.max()) for load in loads), 1e-300)
        held_NE, pair_NEE = relaxation.costs(relaxation.visit_prices(self._prices))
        self._gradient_NMM = _gradient(held_NE / self._scale, pair_NEE / self._scale)
        slope = max(float(np.linalg.norm(self._gradient_NMM)), 1e-12)
        size = float(np.linalg.norm(self.matrix_NMM))
        self._dual_step, self._smooth = slope / (2 * _REACH * size), 0.0
        norm = squared_norm(experts, relaxation.count)
        self._triangle_step = self._dual_step / norm
        self.triangle_FEE = np.zeros((experts, experts, experts))
        self.triangle_EE = np.zeros((experts, experts))

    @property
    def guide_EE(self) -> FloatArray:
        """How much experts share a group, over all groups."""
        return np.asarray(self.matrix_NMM[:, 1:, 1:].sum(axis=0))

    @property
    def _prices(self) -> tuple[FloatArray, FloatArray]:
        return self.price_A[0], self.price_A[1]

    def step(self) -> None:
        """Make one step of the method."""
        relaxation, scale = self._of, self._scale
        relaxation.choose_lines(self.guide_EE)
        visit_SN = relaxation.visit_prices(self._prices)
        held_NE, pair_NEE = relaxation.costs(visit_SN)
        gradient_NMM = _gradient(held_NE / scale, pair_NEE / scale)
        moved = float(np.linalg.norm(self.matrix_NMM - self._before_NMM))
        if moved > 1e-12:
            change = float(np.linalg.norm(gradient_NMM - self._gradient_NMM))
            self._smooth = max(0.9 * self._smooth, change / moved)
        self._gradient_NMM = gradient_NMM
        length = 1 / (3 * self._dual_step + self._smooth)
        cap_NMM = _outer(self.cap_NM, relaxation.q_NM)
        pull_NMM = gradient_NMM - self.cone_NMM + cap_NMM
        pull_NMM[:, 1:, 1:] += self.triangle_EE
        after_NMM = _on_rows(self.matrix_NMM - length * pull_NMM)
        ahead_NMM = 2 * after_NMM - self.matrix_NMM
        self._before_NMM, self.matrix_NMM = self.matrix_NMM, after_NMM
        self.cone_NMM = _on_dual_cone(
            self.cone_NMM - self._dual_step * ahead_NMM, relaxation.u_NM
        )
        over_NM = np.einsum("nij,nj->ni", ahead_NMM, relaxation.q_NM)
        self.cap_NM = np.maximum(0.0, self.cap_NM + self._dual_step * over_NM)
        raise_prices(
            ahead_NMM[:, 1:, 1:].sum(axis=0),
            self._triangle_step,
            self.triangle_FEE,
            self.triangle_EE,
        )
        for leg, load_A in enumerate(relaxation.link_loads(ahead_NMM)):
            power = _PRICE_STEP * (load_A - load_A.max()) / scale
            price_A = self.price_A[leg] * np.exp(np.maximum(power, -5.0))
            self.price_A[leg] = price_A / price_A.sum()

    def multipliers(self) -> Multipliers:
        """Return what the state proves."""
        relaxation, scale = self._of, self._scale
        relaxation.choose_lines(self.guide_EE)
        cone_NMM, cap_NM = self.cone_NMM * scale, self.cap_NM * scale
        dual_NMM = cone_NMM - _outer(cap_NM, relaxation.q_NM)
        triangle_FEE = self.triangle_FEE * scale
        value = relaxation.bound_at(
            relaxation.visit_prices(self._prices), dual_NMM, self.triangle_EE * scale
        )
        return Multipliers(
            price_A=self._prices,
            guide_EE=self.guide_EE,
            cone_NMM=cone_NMM,
            cap_NM=cap_NM,
            triangle_FEE=triangle_FEE,
            value=value - float(triangle_FEE.sum()),
        )

    def relaxed_value(self) -> float:
        """Return the value of the relaxation at the iterate, which is nearly in it."""
        loads = self._of.link_loads(self.matrix_NMM)
        return sum(float(load.max()) for load in loads)


STEP_SECONDS = 1e-8
"""Rate of counted work: a step, per number of all matrices and per row of one."""


def solve_nets(nets: Nets, *, seconds: float, steps: int) -> Multipliers:
    """Return the best multipliers met within the time and number of steps."""
    begun = clock.now()
    state = _State(Relaxation(nets))
    best, close = state.multipliers(), 0
    rate = STEP_SECONDS * state.matrix_NMM.size * state.matrix_NMM.shape[1]
    for number in range(1, steps + 1):
        state.step()
        clock.spend(rate)
        late = clock.now() - begun > seconds
        if number % _EVERY and not late:
            continue
        found = state.multipliers()
        best = max(best, found, key=lambda each: each.value)
        # Iterates are only nearly in the relaxation: one meeting may be by chance.
        apart = abs(state.relaxed_value() - best.value)
        close = close + 1 if apart <= _CLOSE * best.value else 0
        if late or close > 1:
            break
    return best


def _matrix(held_NE: FloatArray, inner_NEE: FloatArray) -> FloatArray:
    count, experts = held_NE.shape
    matrix_NMM = np.empty((count, experts + 1, experts + 1))
    matrix_NMM[:, 0, 0] = 1.0
    matrix_NMM[:, 0, 1:] = matrix_NMM[:, 1:, 0] = held_NE
    matrix_NMM[:, 1:, 1:] = inner_NEE
    diagonal = np.arange(1, experts + 1)
    matrix_NMM[:, diagonal, diagonal] = held_NE
    return matrix_NMM


def _gradient(held_NE: FloatArray, pair_NEE: FloatArray) -> FloatArray:
    """x stands on the diagonal and in both borders: a third of its cost in each."""
    gradient_NMM = _matrix(held_NE / 3, pair_NEE)
    gradient_NMM[:, 0, 0] = 0.0
    return gradient_NMM


def _on_rows(matrix_NMM: FloatArray) -> FloatArray:
    """Project on X >= 0, x >= 0, Σ_n x = 1, x equal in border and diagonal."""
    diagonal = np.arange(1, matrix_NMM.shape[1])
    held_NE = matrix_NMM[:, diagonal, diagonal] + matrix_NMM[:, 0, 1:]
    held_NE = _on_simplex((held_NE + matrix_NMM[:, 1:, 0]) / 3)
    inner_NEE = matrix_NMM[:, 1:, 1:]
    inner_NEE = np.maximum((inner_NEE + inner_NEE.transpose(0, 2, 1)) / 2, 0.0)
    return _matrix(held_NE, inner_NEE)


def _on_simplex(held_NE: FloatArray) -> FloatArray:
    """Project every column on the simplex."""
    sorted_NE = -np.sort(-held_NE, axis=0)
    place_N = np.arange(1, len(held_NE) + 1)[:, None]
    level_NE = (np.cumsum(sorted_NE, axis=0) - 1) / place_N
    last_E = (sorted_NE > level_NE).sum(axis=0) - 1
    level_E = np.take_along_axis(level_NE, last_E[None], axis=0)
    return np.asarray(np.maximum(held_NE - level_E, 0.0))


def _on_dual_cone(matrix_NMM: FloatArray, u_NM: FloatArray) -> FloatArray:
    """Project on the dual of {M >= 0, M·u = 0}: only the part orthogonal to u binds."""
    inner_NMM = -across(matrix_NMM, u_NM)
    value_NM, vector_NMM = np.linalg.eigh(inner_NMM)
    scaled_NMM = vector_NMM * np.sqrt(np.maximum(value_NM, 0.0))[:, None, :]
    return np.asarray(matrix_NMM + scaled_NMM @ scaled_NMM.transpose(0, 2, 1))


def across(matrix_NMM: FloatArray, u_NM: FloatArray) -> FloatArray:
    """Return what is left of symmetric matrices orthogonal to u on both sides."""
    unit_NM = u_NM / np.linalg.norm(u_NM, axis=1, keepdims=True)
    once_NM = np.einsum("nij,nj->ni", matrix_NMM, unit_NM)
    twice_N = (once_NM * unit_NM).sum(axis=1)
    once_NM = once_NM - unit_NM * twice_N[:, None] / 2
    return np.asarray(matrix_NMM - 2 * _outer(once_NM, unit_NM))


def _outer(one_NM: FloatArray, other_NM: FloatArray) -> FloatArray:
    """Return the symmetric part of one·otherᵀ."""
    product_NMM = one_NM[:, :, None] * other_NM[:, None, :]
    return np.asarray((product_NMM + product_NMM.transpose(0, 2, 1)) / 2)
