"""A decoder on two and four ranks equals the unsharded one, in gradients too."""

from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from planner.errors import UsageError
from planner.executor.model.config import GroupedDims, LatentDims
from planner.executor.parallel.spec import ParallelSpec, Place
from planner.workload.memory_terms import ACTIVATION_BYTES, all_reduce_bytes
from planner.workload.presets import load_model
from tests.unit.executor.model.toys import config_of

torch = pytest.importorskip("torch")

from planner.executor.parallel.share import Share  # noqa: E402
from planner.executor.parallel.stage import layers_of  # noqa: E402
from tests.unit.executor.parallel import jobs  # noqa: E402
from tests.unit.executor.parallel.drawn import drawn  # noqa: E402

if TYPE_CHECKING:
    from planner.executor.world.standing import StandingWorld

pytestmark = pytest.mark.torch
KINDS: dict[str, Any] = {
    "multi-head": GroupedDims(heads=4, kv_heads=4, head_dim=8),
    "grouped": GroupedDims(heads=8, kv_heads=2, head_dim=4),
    "multi-query": GroupedDims(heads=4, kv_heads=1, head_dim=4),
    "latent": LatentDims(
        heads=4,
        q_lora_rank=7,
        kv_lora_rank=8,
        rope_head_dim=6,
        head_dim=3,
        v_head_dim=4,
    ),
}
# Every kind of attention divided by two and by four, and everything else once or more.
CASES = [
    *((kind, ParallelSpec(tp=2), "copies") for kind in KINDS),
    *((kind, ParallelSpec(tp=4), "copies") for kind in KINDS),
    ("grouped", ParallelSpec(dp=2), "copies"),
    ("multi-head", ParallelSpec(dp=4), "dedup_gpu"),
    ("latent", ParallelSpec(dp=4), "dedup_domain"),
    ("latent", ParallelSpec(pp=2), "copies"),
    ("grouped", ParallelSpec(pp=4), "copies"),
    ("multi-head", ParallelSpec(tp=2, etp=2), "copies"),
    ("grouped", ParallelSpec(tp=4, etp=2), "dedup_gpu"),
    ("grouped", ParallelSpec(tp=2, dp=2), "dedup_domain"),
    ("latent", ParallelSpec(tp=2, etp=2, dp=2), "dedup_gpu"),
    ("multi-query", ParallelSpec(pp=2, dp=2), "dedup_gpu"),
    ("latent", ParallelSpec(pp=2, tp=2, etp=2), "copies"),
]


def named(case: object) -> str:
    """Degrees above 1."""
    if not isinstance(case, ParallelSpec):
        return str(case)
    return "-".join(f"{n}{d}" for n, d in asdict(case).items() if d > 1)


@pytest.mark.parametrize(("kind", "spec", "traffic"), CASES, ids=named)
def test_outputs_loss_and_gradients_are_the_unsharded_ones(
    worlds: "dict[int, StandingWorld]", kind: str, spec: ParallelSpec, traffic: str
) -> None:
    """Law: dividing a model changes nothing but rounding."""
    worst = worst_of(worlds, KINDS[kind], spec, traffic=traffic)
    assert {name: error for name, error in worst.items() if error > 1e-5} == {}
    assert {"outputs", "loss"} <= set(worst)


@pytest.mark.parametrize("seed", range(6))
def test_drawn_decoders_drawn_ways_to_divide_them(
    worlds: "dict[int, StandingWorld]", seed: int
) -> None:
    """Law: the same, whatever the gate, the widths, the texts and the degrees.

    Ranks may be without a token, layers without one that is routed. The gradient of a
    router that normalises one expert's score to 1 is 0 but for rounding.
    """
    attention, spec, changes = drawn(seed)
    worst = worst_of(worlds, attention, spec, floor=0.01, **changes)
    assert {name: error for name, error in worst.items() if error > 1e-5} == {}


def worst_of(
    worlds: "dict[int, StandingWorld]", dims: Any, spec: ParallelSpec, **changes: Any
) -> dict[str, float]:
    """Greatest relative difference from the unsharded model over all ranks, by name."""
    job = partial(jobs.trained_once, **changes)
    found = worlds[spec.ranks].run(job, dims, spec)
    return {name: max(f.get(name, 0.0) for f in found) for f in found for name in f}


@pytest.mark.parametrize(
    ("spec", "traffic"),
    [
        (ParallelSpec(dp=2), "copies"),
        (ParallelSpec(dp=4), "dedup_domain"),
        (ParallelSpec(tp=2, etp=2, dp=2), "dedup_gpu"),
    ],
    ids=named,
)
def test_rows_and_expert_weights_in_bf16(
    worlds: "dict[int, StandingWorld]", spec: ParallelSpec, traffic: str
) -> None:
    """Law: within 2e-2 of the float32 model, gradients too.

    The only layer with experts comes last: rounding changes no choice.
    """
    changes = {"traffic": traffic, "layers": 2, "precision": "bf16"}
    worst = worst_of(worlds, KINDS["grouped"], spec, **changes)
    assert {name: error for name, error in worst.items() if error > 2e-2} == {}
    assert worst["outputs"] > 1e-5


def test_copies_in_several_sets_have_one_gradient(
    worlds: "dict[int, StandingWorld]",
) -> None:
    """Law: EP sets hold the same experts; what each set saw of them is added up."""
    worst = worst_of(worlds, KINDS["grouped"], ParallelSpec(tp=2, dp=2), sets=2)
    assert {name: error for name, error in worst.items() if error > 1e-5} == {}


def test_replicas_must_bring_as_many_micro_batches(
    worlds: "dict[int, StandingWorld]",
) -> None:
    """Law: what would hang is one clear error in every rank."""
    with pytest.raises(UsageError, match="replicas have 1 to 2 micro-batches"):
        worlds[2].run(jobs.unlike, KINDS["grouped"])


@pytest.mark.parametrize(
    "spec",
    [
        ParallelSpec(dp=2),
        ParallelSpec(dp=4),
        ParallelSpec(tp=2, dp=2),
        ParallelSpec(pp=2, dp=2),
    ],
    ids=named,
)
def test_replicas_stay_identical_to_the_last_bit(
    worlds: "dict[int, StandingWorld]", spec: ParallelSpec
) -> None:
    """Law: after some steps replicas and copies are equal, and as trained unsharded."""
    ranks = worlds[spec.ranks].run(jobs.trained, KINDS["grouped"], spec, 5)
    for rank, found in enumerate(ranks):
        place = Place(spec, rank)
        first = ranks[place.dp_ranks[0]]["weights"]
        for name, weights in found["weights"].items():
            if ".slots." in name:
                continue
            assert torch.equal(weights, first[name]), name
            if not divided(name):
                assert torch.equal(weights, ranks[place.tp_ranks[0]]["weights"][name])
            torch.testing.assert_close(
                weights, found["wanted"][name], rtol=1e-4, atol=1e-5
            )
    assert_copies_equal(ranks, spec)
    last = ranks[-1]
    torch.testing.assert_close(last["losses"], last["wanted losses"], rtol=1e-5, atol=0)
    assert last["losses"][-1] < 0.9 * last["losses"][0]


@pytest.mark.parametrize(
    ("kind", "dense_layers"), [("grouped", 1), ("grouped", 3), ("latent", 2)]
)
def test_all_reduces_move_the_bytes_that_plans_reckon_with(
    worlds: "dict[int, StandingWorld]", kind: str, dense_layers: int
) -> None:
    """Law: those of the memory model, and one more where experts share the tokens out.

    The memory model counts two bytes a value, float32 has four.
    """
    config = config_of(KINDS[kind])
    model = replace(
        load_model("tiny-moe"),
        layers=config.layers,
        moe_layers=tuple(range(dense_layers, config.layers)),
        hidden=config.hidden,
    )
    reckoned = all_reduce_bytes(model, 2, 2 * 5) * 4 // ACTIVATION_BYTES
    shared_out = 2 * 2 * 5 * config.hidden * 4 * (config.layers - dense_layers)
    found = worlds[2].run(
        jobs.all_reduced_bytes, KINDS[kind], ParallelSpec(tp=2), dense_layers
    )
    assert found == [reckoned + shared_out] * 2


@pytest.mark.parametrize(
    ("kind", "share"), [("multi-head", 1 / 2), ("multi-query", 1), ("latent", 1)]
)
def test_decoding_with_a_divided_cache(
    worlds: "dict[int, StandingWorld]", kind: str, share: float
) -> None:
    """Law: a rank keeps its heads' keys and values; a latent and a lone head whole."""
    for error, own, whole in worlds[2].run(jobs.decoded, KINDS[kind]):
        assert error < 1e-5
        assert own == share * whole


def divided(name: str) -> bool:
    """Whether the ranks of an attention group have other parts of a weight."""
    return (
        ".attn.own." in name or ".shared." in name or name.endswith(("w_in", "w_out"))
    )


def assert_copies_equal(ranks: list[Any], spec: ParallelSpec) -> None:
    """All slots of an expert hold the same bits."""
    seen: dict[tuple[int, int, int], Any] = {}
    copies = 0
    for rank, found in enumerate(ranks):
        first = layers_of(3, Share(Place(spec, rank).pp, spec.pp)).start
        for layer, expert_P in found["expert"].items():
            for which in range(2):
                name = f"blocks.{layer - first}.ffn.slots.{which}"
                for slot, expert in enumerate(expert_P.tolist()):
                    weights = found["weights"][name][slot]
                    if expert < 0:
                        assert weights.isnan().all()
                        continue
                    key = layer, which, expert
                    copies += key in seen
                    assert torch.equal(weights, seen.setdefault(key, weights))
                    wanted = found["wanted"][name][slot]
                    torch.testing.assert_close(weights, wanted, rtol=1e-4, atol=1e-5)
    assert copies
