"""What a plan promises that a GPU holds, beside what its tensors hold."""

from dataclasses import dataclass

from planner.executor.result import Moved
from planner.verifier import Setting
from planner.workload.memory_terms import (
    attention_bytes,
    copies_buffer_bytes,
    dedup_buffer_bytes,
    dense_bytes,
    embedding_bytes,
    kv_token_bytes,
    norm_bytes,
    router_bytes,
    shared_bytes,
)
from planner.workload.presets import load_model


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldTerm:
    """One term of the memory of all GPUs.

    Attributes
    ----------
    measured
        Bytes that each GPU's tensors hold; one value if all hold the same.
    promised
        Bytes that the plan sets aside on every GPU.
    binding
        Whether holding more is a fault.
    """

    term: str
    measured: tuple[int, ...]
    promised: int
    binding: bool = True

    @property
    def findings(self) -> list[str]:
        """GPUs that hold more than promised."""
        return [
            f"GPU {gpu}: {self.term} hold {measured:,} B, the plan promises "
            f"{self.promised:,} B"
            for gpu, measured in enumerate(self.measured)
            if self.binding and measured > self.promised
        ]


def held_terms(setting: Setting, moved: Moved) -> tuple[HeldTerm, ...]:
    """Return what was measured, term by term, beside what is promised.

    Bytes of the model's own tensors and of one token in its cache are compared where
    the plan is for that very model and does not divide attention: they are whole in
    every process. Buffers are shown and bind nobody: here all rows of a batch lie
    in them at once, while the kernels that plans reckon with pass rows on in parts.
    """
    held = moved.held
    model, layers = setting.model, setting.manifest.layers
    slots = 1 if setting.options.single else sum(len(one.slots[0]) for one in layers)
    experts = HeldTerm(
        term="experts",
        measured=tuple(moved.slot_bytes_G.tolist()),
        promised=slots * model.expert_bytes,
    )
    buffers = _buffers(setting, moved)
    ran = setting.manifest.inputs.traces[0].name
    if held is None or setting.layout.tp > 1 or model != load_model(ran):
        return (experts, *buffers)
    promised = {
        "attention": attention_bytes(model, 1),
        "dense": dense_bytes(model, 1),
        "shared_experts": shared_bytes(model),
        "router": router_bytes(model),
        "norms": norm_bytes(model),
        "embeddings": embedding_bytes(model),
        "kv_cache": kv_token_bytes(model, 1),
    }
    return (
        experts,
        *(
            HeldTerm(term=name, measured=(held.get(name, 0),), promised=most)
            for name, most in promised.items()
        ),
        *buffers,
    )


def _buffers(setting: Setting, moved: Moved) -> list[HeldTerm]:
    if moved.buffer_bytes_G is None:
        return []
    tokens, messages = setting.options.batch_tokens, setting.message
    if setting.traffic.startswith("dedup"):
        domains = len(setting.topology.domains)
        promised = dedup_buffer_bytes(tokens, domains, messages)
    else:
        layers = setting.manifest.layers
        slots = max(sum(len(gpu) for gpu in layer.slots) for layer in layers)
        promised = copies_buffer_bytes(tokens, slots, messages)
    measured = tuple(moved.buffer_bytes_G.tolist())
    return [
        HeldTerm(term="buffers", measured=measured, promised=promised, binding=False)
    ]
