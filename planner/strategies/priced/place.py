"""One level of ports: LP prices first, then rounds of annealing until time is up."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from planner import clock
from planner.arrays import BoolArray, FloatArray
from planner.formulation.cut.one_level import (
    OneLevel,
    Prices,
    Relaxed,
    best_split,
    relaxed,
)
from planner.strategies.base import Event, Limits
from planner.strategies.priced.anneal import Knobs, anneal
from planner.strategies.priced.state import (
    choices_of,
    empty_scratch,
    peak,
    ports_of_problem,
    state_of,
)

PROPOSALS_PER_SLOT = 10_000
"""Moves that one round tries for each slot, if time allows."""
CHUNKS = 400
HOT, COLD = 0.032, 0.0032
"""First and last temperature, in shares of the objective that a slot has on average:
what a move changes shrinks as slots grow in number."""
SMOOTH, SHARP = 0.3, 10.0
"""First and last exponent of the smooth objective, per slot."""
SWEEPS = 4
"""Rounds of levelling that a promising move gets."""
BOUND_SHARE = 0.5
"""Share of the time that the LP may take."""
WORTHWHILE = 0.25
"""No round starts when less than this share of a round's time is left."""
PROPOSALS_PER_SECOND = 1_200_000
"""Rate of counted work."""
CLOSED = 1 + 1e-8
"""A value within this factor of the bound leaves nothing to gain."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Placement:
    """A placement with its split, and what is proven about it.

    Attributes
    ----------
    placed_EN
        Which domain holds which expert; domains fill their slots.
    from_EN
        Pairs of other domains that each copy serves; own demand comes on top.
    prices
        Multipliers that prove ``bound``.
    rounds
        Rounds of annealing done; ``finished`` if all that were asked for, or if the
        bound is met.
    """

    placed_EN: BoolArray
    from_EN: FloatArray
    value: float
    bound: float
    prices: Prices
    rounds: int
    finished: bool
    history: tuple[Event, ...]


def place(
    problem: OneLevel,
    limits: Limits,
    *,
    rounds: int | None = None,
    starts: Sequence[BoolArray] = (),
    progress: Callable[[Event], None] | None = None,
) -> Placement:
    """Place copies so that the busiest port is as idle as possible.

    Parameters
    ----------
    limits
        Seconds, gap, threads, seed. With ``rounds`` given and time enough, the
        result depends on the seed alone.
    rounds
        Rounds of annealing; as many as there is time for if None.
    starts
        Placements to be at least as good as.

    Raises
    ------
    SolverError
        If the solver fails.
    """
    begun = clock.now()
    found = relaxed(problem, BOUND_SHARE * limits.seconds)
    run = _Run(problem, found, limits, begun, rounds)
    run.progress = progress
    rounded_EN = rounded(problem, found.wanted_EN)
    for start_EN in (rounded_EN, *starts):
        run.offer(start_EN)
    # Rounds follow each other's best: counted work leaves them to one thread.
    threads = 1 if clock.counts_work() else max(1, limits.threads)
    clock.side_by_side(
        [rounded_EN] * threads, lambda start_EN, _: run.work(start_EN), threads=threads
    )
    return run.result()


class _Run:
    """Hands out rounds to threads and keeps the best placement."""

    def __init__(
        self,
        problem: OneLevel,
        found: Relaxed,
        limits: Limits,
        begun: float,
        rounds: int | None,
    ) -> None:
        self._problem, self._found, self._limits = problem, found, limits
        self._begun, self._most = begun, rounds
        self._next = self._done = 0
        self._longest = 0.0
        self._best: tuple[float, BoolArray, FloatArray] | None = None
        self._history: list[Event] = []
        self._lock = threading.Lock()
        self.progress: Callable[[Event], None] | None = None

    def offer(self, placed_EN: BoolArray) -> None:
        """Split a placement as well as can be and keep it if it is the best.

        Among equals the first in a fixed order of bytes stays: threads finish in any
        order.
        """
        from_EN = best_split(self._problem, placed_EN)
        value = self._problem.value(placed_EN, from_EN)
        with self._lock:
            key = (value, placed_EN.tobytes())
            if self._best is None or key < (self._best[0], self._best[1].tobytes()):
                self._best = (value, placed_EN, from_EN)
                event = Event(
                    seconds=clock.now() - self._begun,
                    objective=value,
                    bound=self._found.bound,
                )
                self._history.append(event)
                if self.progress is not None:
                    self.progress(event)

    def work(self, start_EN: BoolArray) -> None:
        """Anneal round after round."""
        while True:
            number = self._take()
            if number is None:
                return
            begun = clock.now()
            best_EN, finished = self._round(number, start_EN)
            self.offer(best_EN)
            with self._lock:
                self._done += finished
                self._longest = max(self._longest, clock.now() - begun)

    @property
    def _value(self) -> float:
        return self._best[0] if self._best else float("inf")

    @property
    def _closed(self) -> bool:
        value, bound = self._value, self._found.bound
        return value <= bound * CLOSED or value - bound <= self._limits.gap * value

    def _left(self) -> float:
        return self._limits.seconds - (clock.now() - self._begun)

    def _take(self) -> int | None:
        """Return the number of the next round, if there is to be one."""
        with self._lock:
            enough = self._most is not None and self._next >= self._most
            late = self._left() <= WORTHWHILE * self._longest
            if enough or late or self._closed:
                return None
            self._next += 1
            return self._next - 1

    def _round(self, number: int, start_EN: BoolArray) -> tuple[BoolArray, bool]:
        """Anneal from the start, cooling with the work or the time that is used."""
        begun, seconds = clock.now(), max(self._left(), 1e-3)
        ports = ports_of_problem(self._problem)
        choices = choices_of(self._problem, self._found.prices)
        state, scratch = state_of(ports, start_EN), empty_scratch(ports)
        seed = (self._limits.seed * 1_000_003 + number + 1) * 0x9E3779B97F4A7C15
        random_1 = np.asarray([seed % 2**64], dtype=np.uint64)
        best_EN, value = start_EN.copy(), peak(ports, state)
        slots = int(ports.slots_N.sum())
        most = PROPOSALS_PER_SLOT * slots
        chunk = max(1, most // CHUNKS)
        tried, done = 0, 0.0
        while done < 1.0:
            knobs = Knobs(
                proposals=chunk,
                temperature=HOT * (COLD / HOT) ** done / slots,
                sharpness=SMOOTH * (SHARP / SMOOTH) ** done * slots,
                sweeps=SWEEPS,
                target=value,
            )
            more = (random_1, best_EN, value)
            value, _ = anneal(ports, state, scratch, choices, knobs, more)
            tried += chunk
            clock.spend(chunk / PROPOSALS_PER_SECOND)
            done = max(tried / most, (clock.now() - begun) / seconds)
            if value <= self._found.bound * CLOSED:
                return best_EN, True
        return best_EN, tried >= most

    def result(self) -> Placement:
        """Return the best placement and how it came about."""
        assert self._best is not None
        value, placed_EN, from_EN = self._best
        asked = self._most is not None and self._done >= self._most
        return Placement(
            placed_EN=placed_EN,
            from_EN=from_EN,
            value=value,
            bound=min(self._found.bound, value),
            prices=self._found.prices,
            rounds=self._done,
            finished=asked or value <= self._found.bound * CLOSED,
            history=tuple(self._history),
        )


def rounded(problem: OneLevel, wanted_EN: FloatArray) -> BoolArray:
    """Return a placement near a fractional one: every expert, then the best copies."""
    placed_EN = np.zeros(wanted_EN.shape, dtype=np.bool_)
    free_N = problem.slots_N.copy()
    for expert in np.argsort(-wanted_EN.max(axis=1), kind="stable"):
        best = int(np.argmax(np.where(free_N > 0, wanted_EN[expert], -np.inf)))
        placed_EN[expert, best] = True
        free_N[best] -= 1
    for copy in np.argsort(-wanted_EN.ravel(), kind="stable"):
        expert, domain = divmod(int(copy), wanted_EN.shape[1])
        if free_N[domain] > 0 and not placed_EN[expert, domain]:
            placed_EN[expert, domain] = True
            free_N[domain] -= 1
    return placed_EN
