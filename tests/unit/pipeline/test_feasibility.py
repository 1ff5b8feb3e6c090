"""Every cause of infeasibility by name, with numbers and repairs that repair."""

from dataclasses import replace
from typing import Any

import pytest

import planner
from planner.errors import Cause, InfeasibleError, UsageError, infeasible_data
from planner.explain.causes import CAUSES
from planner.explain.causes.caps import least_copy_load
from planner.options import SolveOptions
from planner.pipeline import Problem, load
from tests.instances import cluster, small_model

EXPERT_BYTES = 3 * 256 * 128 * 2


def hosts(count: int, memory: int = 10**9) -> dict[str, Any]:
    """Return hosts of two GPUs with this much memory each."""
    found = cluster([2] * count)
    for node in found["nodes"]:
        if node["kind"] == "gpu":
            node["memory_bytes"] = memory
    return found


class Asked:
    """One problem that can be asked again with other options or another cluster."""

    def __init__(self, loads: list[int], **options: Any) -> None:
        self.experts = len(loads)
        self.counts = {"layers": [0], "top_k": 1, "tokens": [loads]}
        given = {"selection": "even", "objective": "gpu_tokens", "batch_tokens": 1}
        self.options = SolveOptions(**(given | {"kv_tokens": 1024} | options))

    def load(self, topology: dict[str, Any], **options: Any) -> Problem:
        changed = replace(self.options, **options)
        return load(
            topology,
            model=small_model(self.experts),
            trace=self.counts,
            options=changed,
        )

    def cause(self, topology: dict[str, Any]) -> Cause:
        with pytest.raises(InfeasibleError) as caught:
            self.load(topology)
        (cause,) = caught.value.causes
        return cause

    def need(self, **options: Any) -> int:
        """Bytes that every GPU of two hosts needs."""
        return int(self.load(hosts(2), **options).instance.memory_bytes_G[0])


def words(cause: Cause) -> list[str]:
    return [repair.what for repair in cause.repairs]


def test_one_byte_too_few_is_named_and_every_repair_repairs() -> None:
    """Law: the numbers are exact, and each repair makes the same request load."""
    asked = Asked([9, 7, 5, 3], redundant="4")
    need = asked.need()
    tight = hosts(2, need - 1)
    cause = asked.cause(tight)
    assert cause.name == "memory"
    assert cause.numbers["short_bytes"] == 1
    assert cause.numbers["needs_bytes"] == need
    assert cause.numbers["gpus_short"] == 4
    assert "h0/g0 needs" in cause.says
    assert words(cause)[:2] == [
        "--redundant 0 instead of 4",
        "--kv-tokens 1023 instead of 1024",
    ]
    assert "2 B more memory on every GPU" in words(cause)
    for repair in cause.repairs:
        assert repair.leaves == ()
        if repair.options:
            asked.load(tight, **repair.options)
    asked.load(hosts(2, need + 1))
    # One step less is not enough: the named values are the least that are.
    for less in ({"kv_tokens": 1024}, {"redundant": "4"}):
        with pytest.raises(InfeasibleError):
            asked.load(tight, **less)


def test_more_hosts_are_counted_and_are_enough() -> None:
    """Eight experts on 2 × 2 GPUs are two each; with room for one, four hosts."""
    asked = Asked([1] * 8, kv_tokens=0)
    tight = hosts(2, asked.need() - EXPERT_BYTES)
    cause = asked.cause(tight)
    assert "2 more hosts of 2 GPUs" in words(cause)
    asked.load(hosts(4, asked.need() - EXPERT_BYTES))
    with pytest.raises(InfeasibleError):
        asked.load(hosts(3, asked.need() - EXPERT_BYTES))


def test_a_smaller_precision_is_offered_where_it_is_enough() -> None:
    """The experts halve; the cache stays at two bytes."""
    asked = Asked([1] * 8, kv_tokens=0)
    cause = asked.cause(hosts(2, asked.need() - EXPERT_BYTES))
    (repair,) = [each for each in cause.repairs if "precision" in each.options]
    assert repair.what == "--precision fp8 instead of bf16"
    asked.load(hosts(2, asked.need() - EXPERT_BYTES), **repair.options)


def test_a_larger_share_of_the_memory_is_offered_where_one_was_asked_for() -> None:
    """The share that holds one token is rounded up to a thousandth."""
    asked = Asked([1] * 8, kv_tokens=None, mem_fraction=0.001)
    need = asked.need(mem_fraction=None, kv_tokens=1)
    where = hosts(2, 2 * need)
    cause = asked.cause(where)
    (repair,) = [each for each in cause.repairs if "mem_fraction" in each.options]
    assert repair.options["mem_fraction"] == 0.5
    assert not any("kv_tokens" in each.options for each in cause.repairs)
    asked.load(where, **repair.options)


def test_where_no_single_change_is_enough_several_are_named_together() -> None:
    """Buffers, cache and two experts of 0.3, 0.3 and 0.4 MB; 0.5 MB are missing."""
    asked = Asked([1] * 8, batch_tokens=20, kv_tokens=320)
    room = asked.need() - 500_000
    cause = asked.cause(hosts(2, room))
    joined = "--batch-tokens 10 and --kv-tokens 160 and 2 more hosts of 2 GPUs"
    (repair,) = [each for each in cause.repairs if each.what == joined]
    asked.load(hosts(4, room), **repair.options)
    for fewer in (2, 3):
        with pytest.raises(InfeasibleError):
            asked.load(hosts(fewer, room), **repair.options)


def test_too_few_slots_are_counted() -> None:
    """Eight experts, one slot on each of four GPUs: four short; four hosts of two."""
    asked = Asked([1] * 8, policy="one_expert_per_gpu")
    cause = asked.cause(hosts(2))
    assert cause.name == "slots"
    assert cause.numbers == {"experts": 8, "slots": 4, "short_slots": 4, "gpus": 4}
    assert words(cause) == [
        "--policy uniform instead of one_expert_per_gpu",
        "2 more hosts of 2 GPUs",
    ]
    asked.load(hosts(2), policy="uniform")
    assert asked.load(hosts(4)).instance.slot_count == 8


def test_two_copies_on_a_gpu_are_refused_with_the_most_that_fit() -> None:
    """Two experts fill two slots of a GPU, not three."""
    asked = Asked([5, 3], redundant="10")
    cause = asked.cause(hosts(2))
    assert cause.name == "copies"
    assert cause.numbers == {"experts": 2, "slots_per_gpu": 3}
    assert words(cause) == ["--redundant 6 instead of 10"]
    asked.load(hosts(2), redundant="6")
    with pytest.raises(InfeasibleError):
        asked.load(hosts(2), redundant="10")


def test_a_cap_below_its_floor_names_layer_expert_and_what_is_reached() -> None:
    """40 of 80 pairs on one of four GPUs: max/mean 2 until it has a second copy."""
    asked = Asked([40, 20, 10, 10], imbalance_cap="1.4", redundant="0")
    cause = asked.cause(hosts(2))
    assert cause.name == "imbalance_cap"
    assert cause.numbers == {"cap": 1.4, "floor": 2.0, "layer": 0, "expert": 0}
    for repair in cause.repairs:
        manifest = planner.solve(
            hosts(2),
            model=small_model(4),
            trace=asked.counts,
            options=replace(asked.options, time_limit=5, **repair.options),  # type: ignore[arg-type]
        )
        assert manifest.imbalance.worst <= float(
            str(repair.options.get("imbalance_cap", 1.4))
        )
    assert "--imbalance-cap 2.0000 instead of 1.4" in words(cause)
    assert "--redundant 4 instead of 0" in words(cause)


def test_a_domain_cap_has_a_floor_of_its_own() -> None:
    """A GPU of 40 is half of its domain's share: at least 80·4/(160·2)."""
    asked = Asked([80, 30, 30, 20], domain_imbalance_cap="1.01", redundant="0")
    # The heaviest sits with the lightest: 100 of 160 on one of two domains is 1.25.
    with pytest.raises(InfeasibleError) as caught:
        planner.solve(
            hosts(2),
            model=small_model(4),
            trace=asked.counts,
            options=replace(
                asked.options, objective="link_time", strategy="milp", time_limit=5
            ),
        )
    (cause,) = caught.value.causes
    assert cause.name == "domain_imbalance_cap"
    assert cause.repairs
    heavy = Asked([90, 10, 10, 10], domain_imbalance_cap="1.4", redundant="0")
    assert heavy.cause(hosts(2)).numbers["floor"] == 1.5


def test_several_causes_are_all_named_and_repairs_say_what_they_leave() -> None:
    """Memory and a cap: neither repair is enough alone, and both say so."""
    asked = Asked([40, 20, 10, 10], imbalance_cap="1.4", redundant="0")
    need = asked.need(imbalance_cap=None)
    with pytest.raises(InfeasibleError) as caught:
        asked.load(hosts(2, need - 1))
    causes = {cause.name: cause for cause in caught.value.causes}
    assert set(causes) == {"memory", "imbalance_cap"}
    assert all(r.leaves == ("imbalance_cap",) for r in causes["memory"].repairs)
    assert all(r.leaves == ("memory",) for r in causes["imbalance_cap"].repairs)
    assert "no single change is enough" in str(caught.value)


def test_what_a_solver_proves_of_caps_gets_repairs_too() -> None:
    """The balance bound is above the floor that counting gives."""
    asked = Asked([30, 30, 30, 30, 30], imbalance_cap="1.3", redundant="3")
    problem = asked.load(hosts(2))
    found = problem.feasibility.proven(InfeasibleError("proven by a bound"))
    (cause,) = found.causes
    assert (cause.name, cause.says) == ("imbalance_cap", "proven by a bound")
    assert cause.repairs and all(not repair.leaves for repair in cause.repairs)
    free = asked.load(hosts(2), imbalance_cap=None)
    error = InfeasibleError("another proof")
    assert free.feasibility.proven(error) is error


def test_a_malformed_cap_is_a_usage_error_not_a_cause() -> None:
    """Law: words are checked before feasibility."""
    with pytest.raises(UsageError, match="is not a number"):
        Asked([1, 1], imbalance_cap="much").load(hosts(1))


def test_causes_are_plain_json() -> None:
    """Law: what REST and --format json print holds every cause and repair."""
    with pytest.raises(InfeasibleError) as caught:
        Asked([5, 3], redundant="10").load(hosts(2))
    data = infeasible_data(caught.value)
    assert data["status"] == "infeasible"
    assert data["causes"] == [
        {
            "name": "copies",
            "says": caught.value.causes[0].says,
            "numbers": {"experts": 2, "slots_per_gpu": 3},
            "repairs": [
                {
                    "what": "--redundant 6 instead of 10",
                    "options": {"redundant": "6"},
                    "leaves": [],
                }
            ],
        }
    ]


def test_every_cause_is_tested_here() -> None:
    """Law: a new cause comes with its case."""
    assert CAUSES.names() == [
        "copies",
        "domain_imbalance_cap",
        "imbalance_cap",
        "memory",
        "slots",
    ]


@pytest.mark.parametrize(
    ("loads", "slots", "least"), [([8, 4], 2, 8), ([8, 4], 3, 4), ([9, 0], 5, 9 / 4)]
)
def test_the_least_load_of_a_copy(loads: list[int], slots: int, least: float) -> None:
    """Copies go to the heaviest; an expert without load keeps one."""
    assert least_copy_load(loads, slots)[0] == least
