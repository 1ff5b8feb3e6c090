"""A small manifest as plain JSON values, for tests that need any valid one.

Its figures are well formed, but of no real traffic: verification refuses it.
"""

from fractions import Fraction

import numpy as np

from planner.manifest import (
    LayerCounts,
    digest_of_json,
    layer_prediction,
    objective_report,
)
from planner.pair_counts import PairCounts
from planner.topology.graph import Link

ZERO = "0" * 64


def link(index, source, target, name, gbs, *, divisor=1, members=()):
    """One link of the tests."""
    return Link(
        index=index,
        source=source,
        target=target,
        kind=name.split(":")[0],
        link_class=name,
        cables=divisor,
        token_divisor=divisor,
        nominal_bytes_per_s=Fraction(gbs),
        bytes_per_s=Fraction(gbs),
        latency_s=0.0,
        members=members,
    )


LINKS = (
    link(0, "a", "b", "nvlink:gpu>gpu", 10),
    link(1, "b", "a", "nvlink:gpu>gpu", 10),
    link(2, "a", "s", "ib:gpu>switch0", 3, divisor=2),
    link(3, "s", "a", "ib:gpu>switch0", 3),
    link(4, "", "", "group:rack", 4, members=(2, 3)),
)


def counts(loads_2A, transfers=((0, 2), (1, 0)), denominator=1):
    """Counts of one layer."""
    return LayerCounts(
        layer=1,
        transfers=PairCounts.of_matrix(np.asarray(transfers)),
        loads_2A=np.asarray(loads_2A),
        denominator=denominator,
        imbalance=Fraction(4, 3),
        domain_imbalance=Fraction(1),
    )


def prediction(**changes):
    """The figures of one layer on the small links."""
    given = {"loads_2A": [[4, 2, 3, 0, 3], [2, 4, 0, 3, 3]], **changes}
    return layer_prediction(
        counts(**given),
        links=LINKS,
        domain_G=np.asarray([0, 1]),
        q=2,
        message_bytes=(10, 20),
    )


def plan_data() -> dict:
    """A manifest as plain JSON values; its figures need not be true here."""
    modes = {"sequential": Fraction(3, 2), "pipelined": Fraction(1), "worst_layer": 1}
    values = {name: modes for name in ("link_time", "link_tokens", "gpu_tokens")}
    objective = objective_report(
        "link_time", "sequential", ["ib:gpu>switch0"], values
    ).model_dump(mode="json")
    imbalance = dict.fromkeys(("mean", "worst", "domain_mean", "domain_worst"), 1.0)
    part = {
        "tokens_exact": "3/1",
        "q": "2",
        "inter_domain_bytes_exact": "90/1",
        "home_tokens_max_over_mean": 1.0,
        "layers": [prediction().model_dump(mode="json")],
    }
    memory = {"memory_bytes": 5, "memory_limit_bytes": 9}
    gpus = [{"gpu": gpu, "pairs": 1.5, "pairs_exact": "3/2", **memory} for gpu in "ab"]
    return {
        "schema": "moe-plan/1",
        "inputs": {
            "topology": {"name": "t", "path": "t.json", "sha256": ZERO},
            "model": {"name": "m", "sha256": ZERO},
            "traces": [{"name": "x", "sha256": ZERO, "traffic": "copies"}],
            "options": {"values": {"seed": 0}, "sha256": digest_of_json({"seed": 0})},
        },
        "gpus": ["a", "b"],
        "layers": [
            {
                "layer": 1,
                "slots": [[0, 1], [1, 2]],
                "split": {"1": {"*": [1, 3], "0": [1, 0]}},
            }
        ],
        "groups": {
            "attention": [{"dp_rank": 0, "gpus": ["a"]}, {"dp_rank": 1, "gpus": ["b"]}],
            "ep": 2,
        },
        "traffic": "copies",
        "selection": "weighted",
        "endpoint": "local_nic",
        "routing": "ecmp_fractional",
        "homes": "by_token",
        "objective": objective,
        "bound": {"value": 1.0, "method": "cut", "of": "copies/weighted"},
        "status": "feasible",
        "gap": 1 / 3,
        "termination": {"reason": "limit", "limit": "time"},
        "prediction": {
            **part,
            "message_bytes": {"dispatch": 10, "combine": 20},
            "gpus": gpus,
        },
        "imbalance": imbalance,
        "baselines": {"eplb_hierarchical": {"reason": "no groups"}},
        "holdout": {
            "tokens": 3.0,
            "objective": objective,
            "imbalance": imbalance,
            "baselines": {},
            "prediction": part,
        },
        "workloads": {
            "x": {
                "traffic": "copies",
                "phase": None,
                "weight": "1/1",
                "tokens": 3.0,
                "objective": 1.5,
            }
        },
        "provenance": {
            "versions": {"planner": "0"},
            "seed": 0,
            "strategy": "auto",
            "seconds": 2.5,
            "history": [{"seconds": 1.0, "objective": 1.5, "bound": None}],
        },
    }
