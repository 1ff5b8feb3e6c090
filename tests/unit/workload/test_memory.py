"""Every memory term against a hand computation, written out as arithmetic."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from planner.errors import InfeasibleError, UsageError
from planner.workload import memory_terms as terms
from planner.workload.memory import MemoryBill, memory_bill
from planner.workload.messages import message_bytes
from planner.workload.model_spec import MoEModelSpec
from planner.workload.presets import load_model

LITE, MIXTRAL, PAPER, TINY = (
    load_model(name)
    for name in ("deepseek-v2-lite", "mixtral-8x7b", "paper-16x16", "tiny-moe")
)


@dataclass(frozen=True)
class Gpu:
    id: str
    memory_bytes: int
    reserved_bytes: int = 0


@dataclass(frozen=True)
class Cluster:
    gpus: tuple[Gpu, ...]
    domains: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Degrees:
    tp: int
    ep: int


def cluster(memory_bytes: int, count: int = 4, reserved: int = 0) -> Cluster:
    gpus = tuple(Gpu(f"gpu{i}", memory_bytes, reserved) for i in range(count))
    half = count // 2
    return Cluster(gpus, (tuple(range(half)), tuple(range(half, count))))


def bill_of(model: MoEModelSpec, where: Cluster, **options: object) -> MemoryBill:
    chosen = {"slots_per_gpu": 16, "traffic": "dedup_domain"} | options
    return memory_bill(
        model,
        where,
        Degrees(tp=1, ep=4),
        messages=message_bytes(model, str(chosen["traffic"])),
        **chosen,  # type: ignore[arg-type]
    )


def test_attention_of_grouped_queries() -> None:
    """Mixtral: W_q and W_o 4096 x 32·128, W_k and W_v 4096 x 8·128, 32 layers, bf16."""
    whole = 32 * (2 * 4096 * 32 * 128 + 2 * 4096 * 8 * 128) * 2
    assert terms.attention_bytes(MIXTRAL, 1) == whole
    assert terms.attention_bytes(MIXTRAL, 8) == whole // 8
    # 16 GPUs share 8 KV heads: 2 query heads and one whole KV head each.
    assert terms.attention_bytes(MIXTRAL, 16) == 32 * 2 * 4096 * (2 + 1) * 128 * 2


def test_attention_of_latents() -> None:
    """V2-Lite: q 2048 x 16·192, kv_a 2048 x 576, kv_b 512 x 16·256, o 16·128 x 2048."""
    shared = 2048 * (512 + 64)
    split = 2048 * 16 * 192 + 512 * 16 * (128 + 128) + 16 * 128 * 2048
    assert terms.attention_bytes(LITE, 1) == 27 * (shared + split) * 2
    assert terms.attention_bytes(LITE, 4) == 27 * (shared + split // 4) * 2


def test_attention_of_latents_with_a_query_rank() -> None:
    """DeepSeek-V3: q through 1536; 128 heads of 128 + 64, values of 128."""
    at = replace(LITE.attention, heads=128, kv_heads=128, q_lora_rank=1536)
    v3 = replace(LITE, layers=61, hidden=7168, attention=at, precision="fp8")
    down = 7168 * 1536 + 7168 * (512 + 64)
    up = 1536 * 128 * 192 + 512 * 128 * 256 + 128 * 128 * 7168
    assert terms.attention_bytes(v3, 1) == 61 * (down + up)


def test_dense_layers_are_divided_over_the_group() -> None:
    """V2-Lite has one dense layer of width 10944; Mixtral has none."""
    assert terms.dense_bytes(LITE, 1) == 1 * 3 * 2048 * 10944 * 2
    assert terms.dense_bytes(LITE, 4) == 3 * 2048 * 2736 * 2
    assert terms.dense_bytes(MIXTRAL, 1) == 0


def test_shared_experts_routers_norms_and_embeddings_are_whole_on_every_gpu() -> None:
    """V2-Lite: 26 layers with two shared experts of 1408; 64 router rows and biases."""
    assert terms.shared_bytes(LITE) == 26 * 3 * 2048 * 2816 * 2
    assert terms.router_bytes(LITE) == 26 * 64 * (2048 + 1) * 2
    assert terms.norm_bytes(LITE) == (27 * (2 * 2048 + 512) + 2048) * 2
    assert terms.embedding_bytes(LITE) == 2 * 102400 * 2048 * 2
    assert terms.embedding_bytes(TINY) == 1 * 2048 * 96 * 4


def test_routed_experts() -> None:
    """The paper's expert: two matrices 4096 x 16384 in bf16 are 268 MB."""
    assert PAPER.expert_bytes == 2 * 4096 * 16384 * 2 == 268_435_456
    bill = bill_of(PAPER, cluster(10**12), slots_per_gpu=4)
    assert bill.terms["experts"].tolist() == [4 * 16 * 268_435_456] * 4


def test_kv_cache_of_a_token() -> None:
    """Keys and values of 8 heads of 128 in 32 layers; a latent of 512 + 64 in 27."""
    assert terms.kv_token_bytes(MIXTRAL, 1) == 32 * 2 * 8 * 128 * 2
    assert terms.kv_token_bytes(MIXTRAL, 4) == 32 * 2 * 2 * 128 * 2
    assert terms.kv_token_bytes(LITE, 1) == 27 * (512 + 64) * 2
    assert terms.kv_token_bytes(LITE, 8) == 27 * (512 + 64) * 2
    bill = bill_of(LITE, cluster(10**12))
    assert bill.terms["kv_cache"].tolist() == [65536 * 27 * 576 * 2] * 4


def test_only_matrices_of_layers_follow_an_eight_bit_precision() -> None:
    """fp8 halves experts, attention, dense and shared; the rest stays at bf16."""
    small = replace(LITE, precision="fp8")
    assert terms.shared_bytes(small) * 2 == terms.shared_bytes(LITE)
    assert terms.attention_bytes(small, 1) * 2 == terms.attention_bytes(LITE, 1)
    assert terms.dense_bytes(small, 1) * 2 == terms.dense_bytes(LITE, 1)
    assert small.expert_bytes * 2 == LITE.expert_bytes
    for term in (terms.router_bytes, terms.norm_bytes, terms.embedding_bytes):
        assert term(small) == term(LITE)
    assert terms.kv_token_bytes(small, 1) == terms.kv_token_bytes(LITE, 1)
    wide = replace(LITE, precision="fp32")
    assert terms.kv_token_bytes(wide, 1) == 2 * terms.kv_token_bytes(LITE, 1)


def test_buffers_of_merged_messages() -> None:
    """2·B·N·(dispatch + combine): 4096 tokens, 2 domains, V2-Lite's messages."""
    dispatch = (2048 + 4 * 16 + 8 + 8 * 6 + 15) // 16 * 16
    combine = (2 * 2048 + 8 + 4 * 6 + 15) // 16 * 16
    expected = 2 * 4096 * 2 * (dispatch + combine)
    assert terms.dedup_buffer_bytes(4096, 2, (dispatch, combine)) == expected
    assert bill_of(LITE, cluster(10**12)).terms["buffers"].tolist() == [expected] * 4


def test_buffers_of_copies() -> None:
    """DeepEP's published case: 128 tokens, 288 slots, D 7168: about 2.1 GB."""
    found = terms.copies_buffer_bytes(128, 288, (7408, 14336))
    assert found == 2 * (288 * 128 * 14336 + 288 * 128 * 14336)
    # With DeepEP's padded combine slot of 14560 bytes it is its figure.
    assert (
        terms.copies_buffer_bytes(128, 288, (7408, 14560)) == 2 * 2 * 288 * 128 * 14560
    )
    # One slot: sending the dispatch is the larger half.
    assert terms.copies_buffer_bytes(2, 1, (30, 20)) == 2 * (2 * 30 + 2 * 30)
    bill = bill_of(LITE, cluster(10**12), traffic="copies", batch_tokens=128)
    assert bill.terms["buffers"][0] == 2 * 2 * 64 * 128 * 4096


def test_all_reduce_of_a_group() -> None:
    """Ring: 2·(t − 1) times T·D bf16; after each of 27 attentions and 1 dense FFN."""
    assert terms.all_reduce_bytes(LITE, 4, 10) == 2 * 3 * 10 * 2048 * 2 * (27 + 1)
    assert terms.all_reduce_bytes(LITE, 1, 10) == 0


def test_the_total_is_the_sum_of_the_terms_per_gpu() -> None:
    """Reserved bytes differ per GPU; everything else is alike."""
    gpus = (Gpu("a", 10**12, 7), Gpu("b", 10**12, 11))
    bill = memory_bill(
        TINY,
        Cluster(gpus, ((0, 1),)),
        Degrees(tp=1, ep=2),
        slots_per_gpu=32,
        traffic="dedup_gpu",
        messages=(160, 224),
        kv_tokens=3,
        batch_tokens=5,
    )
    by_hand = (
        7 * 4 * 96 * 96 * 4  # attention
        + 3 * 96 * 192 * 4  # dense
        + 6 * 3 * 96 * 64 * 4  # shared expert
        + 6 * 64 * 97 * 4  # router and bias
        + (7 * 2 * 96 + 96) * 4  # norms
        + 2048 * 96 * 4  # tied embeddings
        + 3 * 7 * 2 * 96 * 4  # KV cache
        + 2 * 5 * 1 * (160 + 224)  # buffers
        + 32 * 6 * 3 * 96 * 24 * 4  # slots
    )
    assert bill.total_G.tolist() == [by_hand + 7, by_hand + 11]
    assert bill.limit_G.tolist() == [10**12] * 2


def test_a_fraction_of_memory_decides_the_kv_tokens() -> None:
    """As many tokens as the fullest GPU has room for; the next would not fit."""
    gpus = (Gpu("a", 10**11, 0), Gpu("b", 9 * 10**10, 0))
    where = Cluster(gpus, ((0,), (1,)))
    bill = bill_of(LITE, where, mem_fraction=0.9)
    assert bill.limit_G.tolist() == [9 * 10**10, 81 * 10**9]
    assert (bill.total_G <= bill.limit_G).all()
    room = bill.limit_G - bill.total_G
    assert 0 <= int(room[1]) < 27 * 576 * 2
    assert bill.kv_tokens * 27 * 576 * 2 == int(bill.terms["kv_cache"][0])


def test_a_fraction_without_room_for_one_token_asks_for_one() -> None:
    """The bill then asks for one token and does not fit."""
    bill = bill_of(LITE, cluster(10**9), mem_fraction=0.5)
    assert bill.kv_tokens == 1
    assert (bill.total_G > bill.limit_G).all()


@pytest.mark.parametrize(
    "options",
    [
        {"kv_tokens": 1, "mem_fraction": 0.5},
        {"kv_tokens": -1},
        {"mem_fraction": 0.0},
        {"mem_fraction": 1.5},
        {"mem_fraction": float("nan")},
        {"batch_tokens": 0},
    ],
    ids=str,
)
def test_knobs_out_of_range_are_usage_errors(options: dict[str, float]) -> None:
    """Each message names its flag."""
    with pytest.raises(UsageError, match=r"--(kv-tokens|mem-fraction|batch-tokens)"):
        bill_of(LITE, cluster(10**12), **options)


def test_terms_are_named_once_and_arrays_of_gpus() -> None:
    """Ten terms, int64, one entry per GPU."""
    bill = bill_of(MIXTRAL, cluster(10**12))
    assert set(bill.terms) == {
        "reserved",
        "attention",
        "dense",
        "shared_experts",
        "router",
        "norms",
        "embeddings",
        "kv_cache",
        "buffers",
        "experts",
    }
    for term in bill.terms.values():
        assert (term.dtype, term.shape) == (np.int64, (4,))


def test_absurd_sizes_are_infeasible_not_an_overflow() -> None:
    """10^30 tokens of KV cache exceed int64; the message names the term."""
    with pytest.raises(InfeasibleError, match="kv_cache alone takes"):
        bill_of(LITE, cluster(10**12), kv_tokens=10**30)
    huge = replace(LITE, hidden=2**31 - 1, expert_ffn=2**31 - 1)
    with pytest.raises(InfeasibleError, match="experts alone takes"):
        bill_of(huge, cluster(10**12))


def test_a_gpu_in_no_attention_group_has_experts_and_buffers_only() -> None:
    """Every other GPU attends; with a share given the cache fills those only."""
    where, attends_G = cluster(80 * 10**9), np.asarray([True, False] * 2)
    bill = bill_of(LITE, where, attends_G=attends_G)
    for name, count_G in bill.terms.items():
        everywhere = name in ("buffers", "experts", "reserved")
        assert (count_G[0] == count_G[1]) == (everywhere or not count_G[0])
        assert everywhere or count_G[1] == 0
    filled = bill_of(LITE, where, attends_G=attends_G, mem_fraction=0.5)
    left_G = filled.limit_G - filled.total_G
    assert 0 <= left_G[0] < filled.kv_token_bytes < left_G[1]
