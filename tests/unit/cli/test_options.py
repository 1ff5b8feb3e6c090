"""What a verb is given becomes the options, each under its own name."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from planner.cli import options as flags
from planner.cli.solving import evaluate, solve
from planner.cli.why import diagnose
from planner.options import SolveOptions

NAMES = {field.name for field in fields(SolveOptions)}
BESIDES = {
    solve: {"topology", "model", "trace", "dump_model", "output", "output_format"},
    evaluate: {
        "topology",
        "model",
        "trace",
        "plan",
        "routing_draws",
        "output_format",
    },
    diagnose: {"topology", "model", "trace", "ablate", "output_format"},
}
"""Arguments of each verb that are no options."""


@pytest.mark.parametrize("verb", BESIDES)
def test_every_other_argument_is_an_option(verb: Callable[..., Any]) -> None:
    """Law: an argument that is misnamed would be left out in silence."""
    given = set(inspect.signature(verb).parameters) - BESIDES[verb]
    assert given <= NAMES
    assert verb is not solve or given == NAMES


def test_files_and_lists_are_read(tmp_path: Path) -> None:
    """Law: what is not the option itself becomes it; nothing given stays nothing."""
    rules = tmp_path / "rules.json"
    rules.write_text('{"apart": [{"by": "host"}]}')
    chosen = flags.solve_options(
        {
            "topology": "toy-2x2",
            "redundant": "4",
            "message_bytes": "10,20",
            "link_classes": ["ib", "nvlink"],
            "constraints": rules,
            "previous": None,
        }
    )
    assert chosen == SolveOptions(
        redundant="4",
        message_bytes=(10, 20),
        link_classes=("ib", "nvlink"),
        constraints={"apart": [{"by": "host"}]},
    )
    assert flags.solve_options({"link_classes": []}) == SolveOptions()
