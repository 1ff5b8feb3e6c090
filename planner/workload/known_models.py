"""Models known by name, with where their published dimensions come from."""

from planner.workload.model_spec import Attention, MoEModelSpec

_TINY_MOE = MoEModelSpec(
    name="tiny-moe",
    layers=7,
    moe_layers=tuple(range(1, 7)),
    experts=64,
    top_k=6,
    hidden=96,
    expert_ffn=24,
    shared_ffn=64,
    dense_ffn=192,
    ffn_matrices=3,
    attention=Attention(heads=4, kv_heads=4, head_dim=24),
    vocab=2048,
    tied_embeddings=True,
    precision="fp32",
    source="trained by this project: examples/tiny_moe",
)

_DEEPSEEK_V2_LITE = MoEModelSpec(
    name="deepseek-v2-lite",
    layers=27,
    moe_layers=tuple(range(1, 27)),
    experts=64,
    top_k=6,
    hidden=2048,
    expert_ffn=1408,
    shared_ffn=2 * 1408,
    dense_ffn=10944,
    ffn_matrices=3,
    attention=Attention(
        heads=16,
        kv_heads=16,
        head_dim=128,
        kv_lora_rank=512,
        rope_head_dim=64,
        v_head_dim=128,
    ),
    vocab=102400,
    source="deepseek-ai/DeepSeek-V2-Lite config.json; arXiv:2405.04434 appendix B",
)

_MIXTRAL_8X7B = MoEModelSpec(
    name="mixtral-8x7b",
    layers=32,
    moe_layers=tuple(range(32)),
    experts=8,
    top_k=2,
    hidden=4096,
    expert_ffn=14336,
    shared_ffn=0,
    dense_ffn=0,
    ffn_matrices=3,
    attention=Attention(heads=32, kv_heads=8, head_dim=128),
    vocab=32000,
    source="mistralai/Mixtral-8x7B-v0.1 config.json; arXiv:2401.04088 table 1",
)

_PAPER_16X16 = MoEModelSpec(
    name="paper-16x16",
    layers=16,
    moe_layers=tuple(range(16)),
    experts=16,
    top_k=2,
    hidden=4096,
    expert_ffn=16384,
    shared_ffn=0,
    dense_ffn=0,
    ffn_matrices=2,
    attention=Attention(heads=32, kv_heads=32, head_dim=128),
    vocab=100256,
    source="'Large-scale cross-node expert parallelism for MoE inference', first "
    "model: 16 layers x 16 experts, GELU (two matrices), BF16; untied embeddings "
    "assumed",
)

_TOY_64E_GROUPED = MoEModelSpec(
    name="toy-moe-64e-grouped",
    layers=6,
    moe_layers=tuple(range(6)),
    experts=64,
    top_k=6,
    hidden=96,
    expert_ffn=32,
    shared_ffn=32,
    dense_ffn=0,
    ffn_matrices=3,
    attention=Attention(heads=4, kv_heads=4, head_dim=24),
    vocab=2048,
    tied_embeddings=True,
    routing_groups=8,
    precision="fp16",
    source="metadata of its trace and its description: D 96, 6 layers, 64 experts "
    "top-6 in 8 groups choose 3, vocabulary 2048, 4.05 M parameters in fp16; expert "
    "width 32 follows from the parameter count, 4 heads are assumed",
)

KNOWN_MODELS: dict[str, MoEModelSpec] = {
    spec.name: spec
    for spec in (
        _TINY_MOE,
        _DEEPSEEK_V2_LITE,
        _TOY_64E_GROUPED,
        _PAPER_16X16,
        _MIXTRAL_8X7B,
    )
}
