"""What a plan promises that a GPU holds, beside what its tensors hold."""

from collections.abc import Mapping
from dataclasses import dataclass

from planner.arrays import IntArray
from planner.verifier import Setting
from planner.workload.memory_terms import (
    attention_bytes,
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
    """

    term: str
    measured: tuple[int, ...]
    promised: int

    @property
    def findings(self) -> list[str]:
        """GPUs that hold more than promised."""
        return [
            f"GPU {gpu}: {self.term} hold {measured:,} B, the plan promises "
            f"{self.promised:,} B"
            for gpu, measured in enumerate(self.measured)
            if measured > self.promised
        ]


def held_terms(
    setting: Setting, slot_bytes_G: IntArray, held: Mapping[str, int] | None
) -> tuple[HeldTerm, ...]:
    """Return what was measured, term by term, beside what is promised.

    Parameters
    ----------
    slot_bytes_G
        Slots with weights in them, at the size of the model's experts.
    held
        Bytes of the model's other tensors and of one token in its cache; None where
        no model ran. They are compared where the plan is for that very model and
        does not divide attention: they are whole in every process.
    """
    model, layers = setting.model, setting.manifest.layers
    slots = 1 if setting.options.single else sum(len(one.slots[0]) for one in layers)
    experts = HeldTerm(
        term="experts",
        measured=tuple(slot_bytes_G.tolist()),
        promised=slots * model.expert_bytes,
    )
    ran = setting.manifest.inputs.traces[0].name
    if held is None or setting.layout.tp > 1 or model != load_model(ran):
        return (experts,)
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
    )
