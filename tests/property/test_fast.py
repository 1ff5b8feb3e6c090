"""Laws of fast placement: legal, never worse than EPLB, blind to names and units."""

from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.arrays import FloatArray, IdArray, IntArray
from planner.strategies.base import Limits
from planner.strategies.baselines.base import published_plan, repaired
from planner.strategies.fast.strategy import place
from planner.workload.parts import CountsPart

SEVERAL = settings(max_examples=150, deadline=None)


@st.composite
def layers(draw: st.DrawFn) -> tuple[IntArray, int, int]:
    """Loads of some layers with GPUs and slots that hold every expert."""
    experts = draw(st.integers(1, 12))
    slots = draw(st.integers(1, min(experts, 5)))
    least = -(-experts // slots)
    gpus = draw(st.integers(least, least + 6))
    load = st.one_of(st.integers(0, 5), st.integers(0, 10**9))
    rows = st.lists(load, min_size=experts, max_size=experts)
    return np.asarray(draw(st.lists(rows, min_size=1, max_size=3))), gpus, slots


def placed(
    load_LE: IntArray, domain_G: IntArray, slots: int, moves: int, seed: int = 0
) -> IdArray:
    """Return the slots, one thread."""
    limits = Limits(threads=1, seed=seed)
    return place(load_LE, domain_G, slots, moves=moves, limits=limits)[0]


def loads_of(load_E: IntArray, slots_GJ: IdArray) -> FloatArray:
    """Load of every GPU, ascending, where copies share evenly."""
    copies_E = np.bincount(slots_GJ.ravel(), minlength=load_E.size)
    return np.sort((load_E / copies_E)[slots_GJ].sum(axis=1))


@SEVERAL
@given(
    given_=layers(),
    moves=st.integers(0, 300),
    domains=st.integers(1, 4),
    seed=st.integers(-5, 2**40),
)
def test_plans_are_legal(
    given_: tuple[IntArray, int, int], moves: int, domains: int, seed: int
) -> None:
    """Every slot filled, every expert covered, none twice on a GPU."""
    load_LE, gpus, slots = given_
    domain_G = np.arange(gpus) * min(domains, gpus) // gpus
    for slots_GJ in placed(load_LE, domain_G, slots, moves, seed):
        assert set(slots_GJ.ravel().tolist()) == set(range(load_LE.shape[1]))
        assert all(len(set(row)) == slots for row in slots_GJ.tolist())


@SEVERAL
@given(given_=layers(), moves=st.integers(0, 300))
def test_never_worse_than_eplb_repaired(
    given_: tuple[IntArray, int, int], moves: int
) -> None:
    """Whatever the loads, the maximum is at most that of rules 30 and 29."""
    load_LE, gpus, slots = given_
    seen: Any = SimpleNamespace(
        planning=CountsPart(tokens_LE=load_LE, top_k=1),
        model=SimpleNamespace(
            experts=load_LE.shape[1], moe_layers=tuple(range(len(load_LE)))
        ),
        layout=SimpleNamespace(ep=gpus),
        single=False,
        slot_count=gpus * slots,
    )
    seen.views = (seen,)
    start = repaired(seen, published_plan(seen, "eplb_global"))
    found_LGJ = placed(load_LE, np.zeros(gpus, dtype=np.int64), slots, moves)
    for load_E, found, eplb in zip(load_LE, found_LGJ, start.slots_LGJ, strict=True):
        least = loads_of(load_E, eplb)[-1]
        assert loads_of(load_E, found)[-1] <= least * (1 + 1e-12)


@SEVERAL
@given(given_=layers(), moves=st.integers(0, 300), seed=st.integers(0, 99))
def test_domains_only_change_which_gpu_is_which(
    given_: tuple[IntArray, int, int], moves: int, seed: int
) -> None:
    """However GPUs are dealt to domains, the same rows of slots are dealt."""
    load_LE, gpus, slots = given_
    _, domain_G = np.unique(
        np.random.default_rng(seed).integers(0, 3, gpus), return_inverse=True
    )
    whole_LGJ = placed(load_LE, np.zeros(gpus, dtype=np.int64), slots, moves, seed)
    dealt_LGJ = placed(load_LE, domain_G, slots, moves, seed)
    for whole, dealt in zip(whole_LGJ, dealt_LGJ, strict=True):
        assert sorted(whole.tolist()) == sorted(dealt.tolist())


@SEVERAL
@given(given_=layers(), moves=st.integers(0, 300), twos=st.integers(1, 8))
def test_the_unit_of_load_does_not_matter(
    given_: tuple[IntArray, int, int], moves: int, twos: int
) -> None:
    """All loads times a power of two, exact in floats: the same placement."""
    load_LE, gpus, slots = given_
    domain_G = np.zeros(gpus, dtype=np.int64)
    same = placed(load_LE * 2**twos, domain_G, slots, moves)
    assert placed(load_LE, domain_G, slots, moves).tolist() == same.tolist()


@SEVERAL
@given(given_=layers(), moves=st.integers(0, 300))
def test_a_layer_is_placed_as_if_it_were_alone(
    given_: tuple[IntArray, int, int], moves: int
) -> None:
    """The first layer's slots do not depend on the layers after it."""
    load_LE, gpus, slots = given_
    domain_G = np.zeros(gpus, dtype=np.int64)
    alone = placed(load_LE[:1], domain_G, slots, moves)
    assert placed(load_LE, domain_G, slots, moves)[:1].tolist() == alone.tolist()
