"""``accelerate``: RecBole's own sequential models, trained with less work.

A model keeps its parameters and their names, so that checkpoints go both ways, and computes the
same function of them: loss, gradients and scores differ by rounding. The dropout masks are others,
of the same distribution. What is left out is work that nobody reads: padding, states of positions
that are not read out, temporaries that do not fit a cache.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from recbole.model.layers import FeedForward, TransformerEncoder
from torch import Tensor, nn

from recbole_ext.modules.attention import TransformerLayer
from recbole_ext.modules.dropout import Dropout
from recbole_ext.modules.item_softmax import chunked_cross_entropy
from recbole_ext.modules.transformer import by_length
from recbole_ext.registry import can_accelerate, is_accelerated


class Encoder(nn.Module):
    """RecBole's ``TransformerEncoder`` with its own layers' parameters, computed our way.

    ``last`` [B], where it is set, are the only positions whose final state is wanted.
    """

    def __init__(self, theirs: TransformerEncoder) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_layer(layer) for layer in theirs.layer)
        self.last: Tensor | None = None

    def forward(
        self, x: Tensor, attention_mask: Tensor, output_all_encoded_layers: bool = True
    ) -> list[Tensor]:
        """Return the states after each layer, [B, L, D], or after the last layer only.

        With ``last`` the final ones are [B, 1, D].
        """
        states = []
        for layer in self.layer[:-1]:
            x = layer(x, None, attention_mask)  # [B, L, D]
            states.append(x)
        x = self.layer[-1](x, self.last, attention_mask)  # [B, L or 1, D]
        return [*states, x] if output_all_encoded_layers else [x]


def _layer(theirs: Any) -> TransformerLayer:
    """Return our layer around the sub-modules of one of RecBole's."""
    attention, forward = theirs.multi_head_attention, theirs.feed_forward
    with torch.device("meta"):  # no memory and no random numbers: every parameter is replaced
        ours = TransformerLayer(
            hidden_size=attention.all_head_size,
            n_heads=attention.num_attention_heads,
            inner_size=forward.dense_1.out_features,
            hidden_dropout_prob=forward.dropout.p,
            attn_dropout_prob=attention.attn_dropout.p,
            hidden_act=forward.intermediate_act_fn.__name__,
            layer_norm_eps=forward.LayerNorm.eps,
        )
    for part in ("query", "key", "value", "dense", "LayerNorm"):
        setattr(ours.multi_head_attention, part, getattr(attention, part))
    for part in ("dense_1", "dense_2", "LayerNorm"):
        setattr(ours.feed_forward, part, getattr(forward, part))
    return ours


class Accelerated:
    """What an accelerated class is pickled by: there is no import path to it, only to RecBole's."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Return RecBole's class, the last of the bases, and the state."""
        return _unpickled, (type(self).__bases__[-1],), self.__dict__


class ByLength(Accelerated):
    """For models that encode each history for itself: ``forward(item_seq[, item_seq_len])``."""

    leaves_out = "padding"

    def forward(self, item_seq: Tensor, *lengths: Tensor) -> Tensor:
        """Return what RecBole's forward returns, [B, D]."""
        encode = super().forward  # type: ignore[misc]
        counts = lengths[0] if lengths else (item_seq != 0).sum(1)  # [B]
        return by_length(
            lambda seq, count: encode(seq, count) if lengths else encode(seq), item_seq, counts
        )


class LastState(ByLength):
    """... whose Transformers are read at the last item only."""

    leaves_out = "padding and states that are not read"

    def forward(self, item_seq: Tensor, *lengths: Tensor) -> Tensor:
        """Return what RecBole's forward returns, [B, D]."""
        encoders = [module for module in self.modules() if isinstance(module, Encoder)]  # type: ignore[attr-defined]

        def encode(seq: Tensor, count: Tensor) -> Tensor:
            for encoder in encoders:
                encoder.last = count - 1  # [b]
            return super(ByLength, self).forward(seq, count)  # type: ignore[misc]

        try:
            return by_length(encode, item_seq, lengths[0])
        finally:
            for encoder in encoders:
                encoder.last = None

    def gather_indexes(self, output: Tensor, gather_index: Tensor) -> Tensor:
        """Read [B, D] out of the states [B, L, D], or of the one that there is, [B, 1, D]."""
        if output.size(1) == 1:
            return output[:, 0]
        return super().gather_indexes(output, gather_index)  # type: ignore[misc]


class Trimmed(Accelerated):
    """For models that read states at several positions: ``forward(item_seq, ...) -> [B, L, D]``."""

    leaves_out = "shared padding"

    def forward(self, item_seq: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the states of RecBole's forward, and zeros where all rows are padding."""
        used = (item_seq != 0).any(0)  # [L]
        longest = max(1, int((used * torch.arange(1, len(used) + 1, device=used.device)).max()))
        states = super().forward(item_seq[:, :longest], *args, **kwargs)  # type: ignore[misc]
        return F.pad(states, (0, 0, 0, item_seq.size(1) - longest))  # [B, L, D]


class ItemSoftmax(Accelerated):
    """For models with RecBole's usual loss, a softmax over ``item_embedding``."""

    leaves_out = "the matrix of all logits"

    def calculate_loss(self: Any, interaction: Any) -> Tensor:
        """Return RecBole's loss without all of its logits at once."""
        if self.loss_type != "CE":
            return super().calculate_loss(interaction)  # type: ignore[misc]
        states = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])  # [B, D]
        return chunked_cross_entropy(
            states, self.item_embedding.weight, interaction[self.POS_ITEM_ID]
        )


PARTS: dict[str, tuple[type, ...]] = {
    "SASRec": (LastState, ItemSoftmax),
    "SASRecF": (LastState, ItemSoftmax),
    "FDSA": (LastState, ItemSoftmax),
    "GCSAN": (LastState,),
    "CORE": (ByLength,),
    "GRU4Rec": (ByLength, ItemSoftmax),
    "GRU4RecF": (ByLength, ItemSoftmax),
    "NARM": (ByLength, ItemSoftmax),
    "STAMP": (ByLength, ItemSoftmax),
    "SRGNN": (ByLength, ItemSoftmax),
    "BERT4Rec": (Trimmed,),
    "S3Rec": (Trimmed,),
    "LightSANs": (),  # its softmax runs over the positions, padding included
}
"""What is left out of each of ``registry.ACCELERATED``; all get the faster dropout and layers."""


def accelerated(model: Any, config: Any) -> Any:
    """Return ``model``, changed in place where ``accelerate`` is set and it is one of RecBole's.

    Our own models are fast as they are.

    Raises:
        UserError: The model is not meant for it; see :func:`recbole_ext.registry.is_accelerated`.
    """
    name = config["model"]
    theirs: Any = type(model)
    if not is_accelerated(config, config.model_class):
        if can_accelerate(theirs):
            logging.getLogger().info(
                "accelerate: true would train %s faster, with the same function of the same "
                "parameters and other random numbers",
                name,
            )
        return model
    if not can_accelerate(theirs):  # ours, or done already
        return model
    parts: Any = PARTS[theirs.__name__]
    logging.getLogger().info(
        "accelerate: %s with faster layers and dropout%s",
        name,
        "".join(f", without {part.leaves_out}" for part in parts),
    )
    _replace(model)
    if parts:
        model.__class__ = _class(theirs)
    return model


@cache
def _class(theirs: type) -> type:
    """Return the class of an accelerated model, the same one each time."""
    parts: Any = reversed(PARTS[theirs.__name__])
    names = {"__module__": __name__, "__doc__": theirs.__doc__}
    return type(theirs.__name__, (*parts, theirs), names)


def _unpickled(theirs: type) -> Any:
    made: Any = _class(theirs)
    return made.__new__(made)  # the state comes after it


def _replace(module: nn.Module) -> None:
    """Replace RecBole's encoders, torch's dropout and the composite GELU, at any depth."""
    for name, part in module.named_children():
        if isinstance(part, TransformerEncoder):
            setattr(module, name, Encoder(part))
        elif type(part) is nn.Dropout:
            setattr(module, name, Dropout(part.p))
        else:
            if isinstance(part, FeedForward) and part.intermediate_act_fn.__name__ == "gelu":
                part.intermediate_act_fn = F.gelu
            _replace(part)
