"""Message sizes are those of rule 22, checked with the engines' own figures."""

from dataclasses import replace

import pytest

from planner.errors import UsageError
from planner.workload.messages import message_bytes
from planner.workload.presets import load_model

V3 = replace(load_model("deepseek-v2-lite"), hidden=7168, top_k=8)


@pytest.mark.parametrize(
    ("traffic", "dtype", "expected"),
    [
        ("copies", "fp8", (16 + 7168 + 224, 14336)),
        ("copies", "bf16", (16 + 14336, 14336)),
        ("dedup_gpu", "fp8", (7472, 14384)),
        ("dedup_domain", "fp8", (7472, 14384)),
        ("dedup_domain", "bf16", (14416, 14384)),
    ],
)
def test_sizes_are_those_published_for_deepseek_v3(
    traffic: str, dtype: str, expected: tuple[int, int]
) -> None:
    """D 7168, K 8: 7408 and 14336 per copy; 7472 and 14384 merged."""
    model = replace(V3, dispatch_dtype=dtype)  # type: ignore[arg-type]
    assert message_bytes(model, traffic) == expected


def test_a_started_block_needs_a_whole_scale_and_rows_are_multiples_of_16() -> None:
    """D 96, K 6: one scale; 96 + 4 + 8 + 48 = 156 becomes 160."""
    toy = load_model("toy-moe-64e-grouped")
    assert message_bytes(toy, "copies") == (16 + 96 + 4, 2 * 96)
    assert message_bytes(toy, "dedup_gpu") == (160, 224)


def test_an_override_is_taken_as_it_is() -> None:
    """``--message-bytes D,C``; zero is allowed, less is not."""
    assert message_bytes(V3, "copies", (5, 0)) == (5, 0)
    with pytest.raises(UsageError, match="--message-bytes"):
        message_bytes(V3, "copies", (5, -1))
