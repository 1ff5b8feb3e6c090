"""A small plan whose manifest is true: four GPUs, two layers, real files.

The figures come from the witness, so the manifest says nothing about the
evaluator; it is the sound starting point that tests then tamper with.
"""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from planner import bundled
from planner.layout import ParallelLayout
from planner.manifest import (
    LayerCounts,
    digest_of_file,
    digest_of_json,
    exact_text,
    gap_of,
    gpu_predictions,
    layer_prediction,
    objective_report,
    pretty_json,
)
from planner.topology.graph import ClusterTopology
from planner.topology.paths import Routes, build_routes
from planner.topology.schema import load_topology
from planner.witness import figures
from planner.witness.memory import memory_of_gpus
from planner.witness.selection import chosen_ranks
from planner.witness.transfers import gpu_pairs, transfer_counts
from planner.workload.parts import Part, TokenPart
from planner.workload.presets import load_model
from planner.workload.split import split_parts
from planner.workload.trace import load_trace
from planner.workload.trace_writer import write_trace

EXPERTS, TOP_K, TOKENS = 6, 2, 48
SLOTS = (((0, 1), (2, 3), (4, 5), (0, 4)), ((3, 0), (1, 5), (0, 2), (4, 1)))
OPTIONS = {
    "phase": "prefill",
    "traffic": None,
    "selection": "nearest",
    "objective": "link_time",
    "layers": "sequential",
    "link_classes": None,
    "homes": "by_token",
    "imbalance_cap": None,
    "domain_imbalance_cap": None,
    "kv_tokens": 64,
    "mem_fraction": None,
    "batch_tokens": 16,
    "precision": None,
    "endpoint": None,
    "routing": None,
    "message_bytes": None,
    "seed": 0,
    "holdout": "0.5",
}
MODEL = {
    "schema": "moe-model/1",
    "name": "small",
    "layers": 3,
    "moe_layers": [1, 2],
    "experts": EXPERTS,
    "top_k": TOP_K,
    "hidden": 64,
    "expert_ffn": 32,
    "shared_ffn": 16,
    "dense_ffn": 128,
    "attention": {"heads": 4, "kv_heads": 2, "head_dim": 16},
    "vocab": 100,
}


def write_inputs(folder: Path) -> None:
    """Write the model and a seeded trace of two tags into a folder."""
    (folder / "model.json").write_text(pretty_json(MODEL))
    rng = np.random.default_rng(5)
    experts = {
        layer: np.stack([rng.permutation(EXPERTS)[:TOP_K] for _ in range(TOKENS)])
        for layer in (1, 2)
    }
    write_trace(
        folder / "trace.parquet",
        metadata={"num_experts": EXPERTS, "top_k": TOP_K, "model": "small"},
        seq_id=np.arange(TOKENS) // 6,
        pos=np.arange(TOKENS) % 6,
        tag=["ab"[at // 24] for at in range(TOKENS)],
        phase="prefill",
        experts=experts,
    )


def valid_plan(folder: Path, **changes: Any) -> dict[str, Any]:
    """Write the inputs and return a true manifest as JSON values.

    ``changes`` may set ``traffic``, ``selection``, ``endpoint``, ``objective``,
    ``layers`` (mode), ``slots`` and ``split``.
    """
    write_inputs(folder)
    asked = {"traffic": "dedup_domain", "endpoint": "dest_forward", **changes}
    slots, split = asked.pop("slots", SLOTS), asked.pop("split", {})
    options = {**OPTIONS, **asked}
    topology = load_topology("toy-2x2")
    routes = build_routes(topology)
    model = load_model(folder / "model.json")
    layout = ParallelLayout(
        domain_G=topology.domain_G,
        ep=4,
        attention_groups=tuple((gpu,) for gpu in range(4)),
    )
    trace = load_trace(folder / "trace.parquet")
    planning, holdout, homes = split_parts(trace, layout, "by_token", "0.5", "prefill")
    message = figures.message_bytes(model, options["traffic"])
    case = Case(topology, routes, layout, options, slots, split, message, homes.ratio)
    counted = case.count(planning)
    memory_and_limit = memory_of_gpus(
        model,
        topology,
        layout,
        slots_per_layer=[len(slots[0][0])] * 2,
        traffic=options["traffic"],
        message=message,
        batch_tokens=options["batch_tokens"],
        kv_tokens=options["kv_tokens"],
        mem_fraction=options["mem_fraction"],
    )
    objective, imbalance = case.judge(counted)
    return {
        "schema": "moe-plan/1",
        "inputs": _inputs(folder, options),
        **_placement(case),
        "traffic": options["traffic"],
        "selection": options["selection"],
        "endpoint": options["endpoint"],
        "routing": "ecmp_fractional",
        "homes": "by_token",
        "objective": objective,
        **_evidence(objective),
        "prediction": {
            **case.predict(planning, counted),
            "message_bytes": {"dispatch": message[0], "combine": message[1]},
            "gpus": _gpus(case, counted, memory_and_limit),
        },
        "imbalance": imbalance,
        "baselines": {},
        "holdout": _holdout(case, holdout),
        "workloads": {
            "small": {
                "traffic": options["traffic"],
                "phase": "prefill",
                "weight": "1/1",
                "tokens": float(planning.token_count),
                "objective": objective["value"],
            }
        },
        "provenance": {
            "versions": {},
            "seed": 0,
            "strategy": "by hand",
            "seconds": 0.0,
        },
    }


def _placement(case: "Case") -> dict[str, Any]:
    """Which GPU holds what, and which attends."""
    ids = [gpu.id for gpu in case.topology.gpus]
    attention = [{"dp_rank": rank, "gpus": [gpu]} for rank, gpu in enumerate(ids)]
    return {
        "gpus": ids,
        "layers": [
            {"layer": number, "slots": [list(row) for row in rows], **split_of}
            for number, rows, split_of in zip(
                (1, 2), case.slots, case.split_records(), strict=True
            )
        ],
        "groups": {"attention": attention, "ep": 4},
    }


def _evidence(objective: dict[str, Any]) -> dict[str, Any]:
    """A bound that holds of anything, and what it says of the plan."""
    return {
        "bound": {
            "value": 0.0,
            "method": "trivial",
            "of": "any",
            "certificate": {"kind": "nothing_moves"},
        },
        "status": "feasible",
        "gap": gap_of(Fraction(objective["value_exact"]), 0.0),
        "termination": {"reason": "complete"},
    }


def _gpus(
    case: "Case",
    counted: list[figures.LayerFigures],
    memory_and_limit: tuple[Any, Any],
) -> list[Any]:
    """Pairs and memory, filled and whole, of every GPU."""
    ids = [gpu.id for gpu in case.topology.gpus]
    pairs_G = [
        Fraction(sum(int(at.pairs_G[gpu]) for at in counted)) for gpu in range(4)
    ]
    predicted = gpu_predictions(ids, pairs_G, *memory_and_limit)
    return [gpu.model_dump(mode="json") for gpu in predicted]


def _holdout(case: "Case", part: TokenPart) -> dict[str, Any]:
    """The plan on what it has not seen."""
    counted = case.count(part)
    objective, imbalance = case.judge(counted)
    return {
        "tokens": float(part.token_count),
        "objective": objective,
        "imbalance": imbalance,
        "baselines": {},
        "prediction": case.predict(part, counted),
    }


class Case:
    """Counts and judges one placement with the witness."""

    def __init__(
        self,
        topology: ClusterTopology,
        routes: Routes,
        layout: ParallelLayout,
        options: dict[str, Any],
        slots: Any,
        split: Any,
        message: tuple[int, int],
        home_ratio: float,
    ) -> None:
        self.topology, self.routes, self.layout = topology, routes, layout
        self.options, self.slots, self.split = options, slots, split
        self.message, self.home_ratio = message, home_ratio

    def count(self, part: TokenPart) -> list[figures.LayerFigures]:
        """The figures of every layer."""
        result = []
        for index, rows in enumerate(self.slots):
            targets_TK = chosen_ranks(
                np.asarray(rows, dtype=np.int16),
                self.split.get(index, {}),
                self.options["selection"],
                part.experts_LTK[index],
                part.source_T,
                part.rank_T,
                part.ordinal_T,
                self.layout,
            )
            transfers = transfer_counts(
                self.options["traffic"],
                self.options["endpoint"],
                targets_TK,
                part.source_T,
                self.layout,
            )
            pairs_G = gpu_pairs(targets_TK, 4)
            result.append(figures.layer_figures(pairs_G, transfers, 1, self.routes))
        return result

    def judge(self, counted: list[figures.LayerFigures]) -> tuple[Any, Any]:
        """Objective and imbalance reports as JSON values."""
        links = self.topology.links
        found = figures.values(counted, links, self.routes.q, self.message, None)
        scope = sorted({link.link_class for link in figures.scope(links, None)})
        report = objective_report(
            self.options["objective"], self.options["layers"], scope, found
        )
        gpu = [figures.imbalance(layer) for layer in counted]
        domain = [figures.domain_imbalance(layer, self.layout) for layer in counted]
        return report.model_dump(mode="json"), {
            "mean": float(sum(gpu) / 2),
            "worst": float(max(gpu)),
            "domain_mean": float(sum(domain) / 2),
            "domain_worst": float(max(domain)),
        }

    def predict(self, part: Part, counted: list[figures.LayerFigures]) -> Any:
        """A part's prediction as JSON values."""
        layers = [
            layer_prediction(
                LayerCounts(
                    layer=number,
                    transfers=at.transfers,
                    loads_2A=np.stack([at.dispatch_A, at.combine_A]),
                    denominator=1,
                    imbalance=figures.imbalance(at),
                    domain_imbalance=figures.domain_imbalance(at, self.layout),
                ),
                links=self.topology.links,
                domain_G=self.layout.domain_G,
                q=self.routes.q,
                message_bytes=self.message,
            ).model_dump(mode="json")
            for number, at in zip((1, 2), counted, strict=True)
        ]
        inter = figures.inter_domain_bytes(counted, self.layout, self.message)
        return {
            "tokens_exact": f"{part.token_count}/1",
            "q": str(self.routes.q),
            "inter_domain_bytes_exact": exact_text(inter),
            "home_tokens_max_over_mean": self.home_ratio,
            "layers": layers,
        }

    def split_records(self) -> list[dict[str, Any]]:
        """Weights per layer as the manifest holds them."""
        return [
            {
                "split": {
                    str(expert): {rank: list(w) for rank, w in by_rank.items()}
                    for expert, by_rank in self.split[index].items()
                }
            }
            if self.split.get(index)
            else {}
            for index in range(2)
        ]


def _inputs(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    trace = digest_of_file(folder / "trace.parquet")
    return {
        "topology": {
            "name": "toy-2x2",
            "sha256": digest_of_file(bundled.topology_path("toy-2x2")),
        },
        "model": {
            "name": "small",
            "path": "model.json",
            "sha256": digest_of_file(folder / "model.json"),
        },
        "traces": [
            {
                "name": "trace",
                "path": "trace.parquet",
                "sha256": trace,
                "traffic": options["traffic"],
            }
        ],
        "options": {"values": options, "sha256": digest_of_json(options)},
    }
