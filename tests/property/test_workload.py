"""Homes, held-out sequences, sources, ordinals and demand obey rules 11 to 15.

Every law compares the planner with ``tests/oracles/workload.py``, which is written
from the rules with loops and shares no code with it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.layout import ParallelLayout
from planner.workload.demand import demand_LSE, distinct_sets
from planner.workload.parts import TokenPart
from planner.workload.split import split_parts
from planner.workload.trace import RoutingTrace, load_trace
from tests.oracles import workload as oracle

EXPERTS, TOP_K = 7, 3
PHASES = ("prefill", "decode", None)
Row = list[int | None]


@dataclass(frozen=True)
class Recorded:
    """A trace as rows, the way an outsider sees it."""

    sequences: list[int] | list[str]
    tags: list[str | None]
    phases: list[str | None]
    ranks: list[int | None]
    layers: list[list[Row | None]]

    def rows(self, layer: int, chosen: list[int]) -> list[Row]:
        """Return a layer's rows, nulls as lists of nulls."""
        return [self.layers[layer][i] or [None] * TOP_K for i in chosen]


@st.composite
def recorded(draw: st.DrawFn) -> Recorded:
    count = draw(st.integers(2, 24))

    def column(values: st.SearchStrategy) -> list:
        return draw(st.lists(values, min_size=count, max_size=count))

    names = st.integers(0, 9) if draw(st.booleans()) else st.sampled_from("zyxab")
    ids = st.lists(
        st.integers(0, EXPERTS - 1), min_size=TOP_K, max_size=TOP_K, unique=True
    )
    holes = st.tuples(ids, st.integers(0, TOP_K - 1)).map(
        lambda drawn: [None if k == drawn[1] else e for k, e in enumerate(drawn[0])]
    )
    row = st.one_of(ids, holes, st.none())
    return Recorded(
        sequences=column(names),
        tags=column(st.sampled_from(["law", "code", None])),
        phases=column(st.sampled_from(PHASES)),
        ranks=column(st.sampled_from([0, 1, None] if draw(st.booleans()) else [0, 1])),
        layers=[column(row) for _ in range(2)],
    )


def write(path: Path, trace: Recorded) -> None:
    """Write the rows with pyarrow alone."""
    table = pa.table(
        {
            "request_id": pa.array(trace.sequences),
            "domain": pa.array(trace.tags, pa.string()),
            "phase": pa.array(trace.phases, pa.string()).dictionary_encode(),
            "rank": pa.array(trace.ranks, pa.uint16()),
            "e03": pa.array(trace.layers[0], pa.list_(pa.uint8(), TOP_K)),
            "e12": pa.array(trace.layers[1], pa.list_(pa.int32())),
        }
    )
    facts = b'{"num_experts": 7, "top_k": 3, "moe_layers": [3, 12]}'
    pq.write_table(
        table.replace_schema_metadata({"moe_trace": facts}), path, row_group_size=5
    )


@st.composite
def layouts(draw: st.DrawFn) -> ParallelLayout:
    ranks, tp = draw(st.integers(2, 4)), draw(st.integers(1, 3))
    gpus = draw(st.permutations(range(ranks * tp)))
    groups = tuple(tuple(gpus[i * tp : (i + 1) * tp]) for i in range(ranks))
    return ParallelLayout(
        domain_G=np.zeros(ranks * tp, dtype=np.int64),
        ep=ranks * tp,
        attention_groups=groups,
    )


laws = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def kept(trace: Recorded, phase: str | None) -> list[int]:
    """Rows of a phase; all rows where the trace tells no phases apart."""
    everything = list(range(len(trace.phases)))
    if phase is None or len(set(trace.phases)) == 1:
        return everything
    return [i for i in everything if trace.phases[i] == phase]


def compare(
    part: TokenPart, trace: Recorded, rows: list[int], all_sources: list
) -> None:
    sources = [all_sources[i] for i in rows]
    assert part.row_T.tolist() == rows
    assert part.source_T.tolist() == sources
    assert part.ordinal_T.tolist() == oracle.ordinals(sources)
    layers = [trace.rows(layer, rows) for layer in range(2)]
    expected = [
        [[-1 if e is None else e for e in row] for row in ids] for ids in layers
    ]
    assert part.experts_LTK.dtype == np.int16
    assert part.experts_LTK.tolist() == expected
    gpus = max(all_sources) + 1
    assert demand_LSE(part, EXPERTS, gpus).tolist() == oracle.demand(
        layers, sources, EXPERTS, gpus
    )
    for layer in range(2):
        found = distinct_sets(part, layer)
        as_dict = {
            (int(source), tuple(e for e in ids if e >= 0)): int(weight)
            for source, ids, weight in zip(
                found.source_n, found.experts_nK.tolist(), found.weight_n, strict=True
            )
        }
        assert len(as_dict) == found.weight_n.size
        assert as_dict == oracle.distinct_sets(layers[layer], sources)


@pytest.mark.parametrize(
    "policy", ["trace", "by_token", "round_robin", "balanced", "by_tag"]
)
@laws
@given(
    trace=recorded(),
    layout=layouts(),
    share=st.sampled_from(["0", "0.25", ".5", "0.5:s", "0.5:", "0.333", "1"]),
    phase=st.sampled_from(PHASES),
)
def test_parts_are_those_of_the_rules(
    policy: str,
    trace: Recorded,
    layout: ParallelLayout,
    share: str,
    phase: str | None,
    tmp_path: Path,
) -> None:
    """Rows, sources, ordinals, ids and demand of both parts follow rules 11 to 15."""
    file = tmp_path / "trace.parquet"
    write(file, trace)
    loaded = load_trace(file)
    assert isinstance(loaded, RoutingTrace)
    ranks = oracle.homes(policy, trace.sequences, trace.ranks, layout.dp, trace.tags)
    sources = oracle.sources(ranks, layout.attention_groups)
    held = oracle.held_out(trace.sequences, trace.tags, share)
    rows = kept(trace, phase)
    planned = [i for i in rows if not held[i]]
    unseen = [i for i in rows if held[i]]
    if not planned:
        return
    planning, holdout, report = split_parts(loaded, layout, policy, share, phase)
    assert isinstance(planning, TokenPart)
    assert planning.rank_T.tolist() == [ranks[i] for i in planned]
    compare(planning, trace, planned, sources)
    if unseen:
        assert isinstance(holdout, TokenPart)
        assert report.holdout_reason is None
        compare(holdout, trace, unseen, sources)
    else:
        assert holdout is None
        assert report.holdout_reason
    per_home = [ranks.count(rank) for rank in range(layout.dp)]
    assert report.tokens_S.tolist() == per_home
    assert report.ratio == pytest.approx(max(per_home) / (len(ranks) / layout.dp))
