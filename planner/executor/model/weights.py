"""A model in two files: weights as float16 arrays, and a card with its dimensions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from planner.errors import ModelError
from planner.executor.model.config import DecoderConfig
from planner.executor.model.decoder import Decoder
from planner.executor.model.tiny import TinyMoESpec


def save(model: Decoder, npz_path: Path, json_path: Path, info: dict[str, Any]) -> None:
    """Write the weights, and a card of ``info`` and the dimensions (``spec``).

    Dimensions that ``info`` has itself are taken from there.
    """
    arrays = {
        name: tensor.detach().cpu().numpy().astype(np.float16)
        for name, tensor in sorted(model.state_dict().items())
    }
    np.savez_compressed(npz_path, **arrays)
    document = {"spec": model.config.to_dict(), **info}
    json_path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def load_model(npz_path: Path, json_path: Path) -> Decoder:
    """Read a model that ``save`` wrote; weights become float32.

    Raises
    ------
    ModelError
        If the arrays do not fit the dimensions in the JSON file.
    """
    spec = json.loads(json_path.read_text(encoding="utf-8"))["spec"]
    model = Decoder(
        DecoderConfig.from_dict(spec)
        if "attention" in spec
        else TinyMoESpec.from_dict(spec).config
    )
    with np.load(npz_path, allow_pickle=False) as arrays:
        state = {
            name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays
        }
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(
            f"must hold the arrays of the spec: {error}", where=npz_path.name
        ) from error
    model.eval()
    return model
