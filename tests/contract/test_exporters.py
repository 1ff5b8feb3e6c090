"""What every engine exporter must keep: each slot once, read back as it was.

A new engine adds its loader here, written from the engine's own reading rules.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.exporters.base import EXPORTERS
from planner.manifest import parse_manifest
from planner.workload.model_spec import Attention, MoEModelSpec
from tests.oracles.manifest_data import plan_data, prediction

Slots = list[list[list[int]]]


def load_sglang(text: str, flags: list[str], model: MoEModelSpec) -> Slots:
    """Read like SGLang 0.5.23: ``init_by_mapping(config, **data, ...)``."""

    def init_by_mapping(*, physical_to_logical_map: list[list[int]]) -> Slots:
        ep_size = int(flags[flags.index("--ep-size") + 1])
        redundant = int(flags[flags.index("--ep-num-redundant-experts") + 1])
        physical = model.experts + redundant
        assert physical % ep_size == 0
        assert len(physical_to_logical_map) == model.layers
        block = physical // ep_size
        for row in physical_to_logical_map:
            assert len(row) == physical
            assert set(row) == set(range(model.experts))
        return [
            [row[rank * block : (rank + 1) * block] for rank in range(ep_size)]
            for row in physical_to_logical_map
        ]

    slots = init_by_mapping(**json.loads(text))
    return [slots[number] for number in model.moe_layers]


LOADERS: dict[str, Callable[[str, list[str], MoEModelSpec], Slots]] = {
    "sglang": load_sglang
}


@st.composite
def placements(draw: st.DrawFn) -> tuple[MoEModelSpec, Slots]:
    """A model with dense layers in any place and a legal plan of it."""
    experts, ranks = draw(st.integers(2, 6)), draw(st.integers(1, 4))
    low = -(-experts // ranks)
    per_gpu = draw(st.integers(low, experts))
    hidden = draw(st.integers(1, 4))
    moe = draw(st.sets(st.integers(0, hidden - 1), min_size=1))
    layers: Slots = []
    for _ in moe:
        order = draw(st.permutations(range(experts)))
        # A run of at most E consecutive experts per GPU: no duplicates, all covered.
        rows = [
            [order[(rank * per_gpu + at) % experts] for at in range(per_gpu)]
            for rank in range(ranks)
        ]
        layers.append(rows)
    model = MoEModelSpec(
        name="m",
        layers=hidden,
        moe_layers=tuple(sorted(moe)),
        experts=experts,
        top_k=1,
        hidden=8,
        expert_ffn=8,
        shared_ffn=0,
        dense_ffn=8,
        ffn_matrices=3,
        attention=Attention(heads=1, kv_heads=1, head_dim=8),
        vocab=10,
    )
    return model, layers


def manifest_of(model: MoEModelSpec, layers: Slots):
    """A manifest that holds these slots."""
    data = plan_data()
    ranks = len(layers[0])
    one = prediction().model_dump(mode="json")
    numbered = [{**one, "layer": number} for number in model.moe_layers]
    data["layers"] = [
        {"layer": number, "slots": slots}
        for number, slots in zip(model.moe_layers, layers, strict=True)
    ]
    data["gpus"] = [f"g{rank}" for rank in range(ranks)]
    data["groups"]["ep"] = ranks
    memory = data["prediction"]["gpus"][0]
    data["prediction"]["gpus"] = [{**memory, "gpu": gpu} for gpu in data["gpus"]]
    data["prediction"]["layers"] = numbered
    data["holdout"]["prediction"]["layers"] = numbered
    data["selection"] = "nearest"
    return parse_manifest(data)


@pytest.mark.parametrize("engine", EXPORTERS.names())
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(case=placements())
def test_the_engine_reads_back_the_plan(
    engine: str, case: tuple[MoEModelSpec, Slots], tmp_path: Path
) -> None:
    """Law: every slot appears exactly once, on the same GPU, in the same place."""
    model, layers = case
    result = EXPORTERS.get(engine)(manifest_of(model, layers), tmp_path, model)
    assert all(path.is_file() for path in result.files)
    text = result.files[0].read_text()
    assert LOADERS[engine](text, result.launch_flags.split(), model) == layers


def test_every_engine_has_a_loader_to_be_tested_with() -> None:
    """Law: a new exporter cannot join without its reader."""
    assert EXPORTERS.names() == sorted(LOADERS)
