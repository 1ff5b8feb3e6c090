"""Models known by name, with where their published dimensions come from."""

from dataclasses import replace

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

_DEEPSEEK_V3 = MoEModelSpec(
    name="deepseek-v3",
    layers=61,
    moe_layers=tuple(range(3, 61)),
    experts=256,
    top_k=8,
    hidden=7168,
    expert_ffn=2048,
    shared_ffn=2048,
    dense_ffn=18432,
    ffn_matrices=3,
    attention=Attention(
        heads=128,
        kv_heads=128,
        head_dim=128,
        q_lora_rank=1536,
        kv_lora_rank=512,
        rope_head_dim=64,
        v_head_dim=128,
    ),
    vocab=129280,
    routing_groups=8,
    precision="fp8",
    source="deepseek-ai/DeepSeek-V3 config.json; arXiv:2412.19437 section 4.2 (weights "
    "in FP8; the multi-token prediction module is left out)",
)

_DEEPSEEK_R1 = replace(
    _DEEPSEEK_V3,
    name="deepseek-r1",
    source="deepseek-ai/DeepSeek-R1 config.json: the dimensions of DeepSeek-V3",
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

_PAPER_61X256 = MoEModelSpec(
    name="paper-61x256",
    layers=61,
    moe_layers=tuple(range(3, 61)),
    experts=256,
    top_k=8,
    hidden=7168,
    expert_ffn=2048,
    shared_ffn=2048,
    dense_ffn=18432,
    ffn_matrices=3,
    attention=Attention(
        heads=128,
        kv_heads=128,
        head_dim=56,
        kv_lora_rank=512,
        rope_head_dim=64,
        v_head_dim=56,
    ),
    vocab=100256,
    routing_groups=8,
    source="'Large-scale cross-node expert parallelism for MoE inference', second "
    "model: 3 dense and 58 MoE layers x 256 experts, D 7168, FFN 18432, MLA 128 x 56; "
    "18432 is read as the dense FFN, and top-8, the routed experts' 2048, the shared "
    "expert, MLA ranks and 8 groups are DeepSeek-V3's, BF16, vocabulary as in the "
    "paper's first model",
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
        _DEEPSEEK_V3,
        _DEEPSEEK_R1,
        _TOY_64E_GROUPED,
        _PAPER_16X16,
        _PAPER_61X256,
        _MIXTRAL_8X7B,
    )
}
