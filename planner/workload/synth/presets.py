"""Calibrated kinds of synthetic routing, by name."""

from dataclasses import dataclass

from planner.workload.synth.latent import LatentModel
from planner.workload.synth.load import LoadModel


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthPreset:
    """Routing shaped as a known model's; ``kept_groups`` of its groups are open."""

    name: str
    model: str
    latent: LatentModel
    load: LoadModel
    kept_groups: int = 1


PRESETS: dict[str, SynthPreset] = {
    preset.name: preset
    for preset in (
        SynthPreset(
            name="v2lite",
            model="deepseek-v2-lite",
            latent=LatentModel(
                dimensions=7,
                vocabulary=6000,
                zipf=0.95,
                token=0.5,
                tag=0.22,
                sequence=0.1,
                context=0.08,
                depth=0.1,
            ),
            load=LoadModel(sigma=0.5),
        ),
        SynthPreset(
            name="dsv3",
            model="deepseek-v3",
            latent=LatentModel(
                dimensions=12,
                vocabulary=12000,
                zipf=1.0,
                token=0.45,
                tag=0.2,
                sequence=0.12,
                context=0.08,
                depth=0.15,
            ),
            load=LoadModel(sigma=0.65, hot=3, hot_extra=2.5),
            kept_groups=4,
        ),
        SynthPreset(
            name="mixtral",
            model="mixtral-8x7b",
            latent=LatentModel(
                dimensions=24,
                vocabulary=12000,
                zipf=1.0,
                token=0.3,
                tag=0.02,
                sequence=0.03,
                context=0.1,
                depth=0.55,
                depth_memory=0.6,
            ),
            load=LoadModel(sigma=0.1),
        ),
    )
}
