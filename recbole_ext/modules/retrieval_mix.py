"""From retrieved neighbours to a mixture: their weights, its losses, its scores.

The maths of FTRagRec in one module: it is given states, a memory and places in it, and knows
neither data loaders nor how the neighbours were searched.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ext.modules import mixing
from recbole_ext.modules.memory import Memory, full_precision
from recbole_ext.modules.mixing import MixSettings
from recbole_ext.modules.retriever import MixGate, Retriever, log_weights

MIXES = ("log_linear", "probability", "vector", "gate")
KL_TARGETS = ("label", "model")


@dataclass
class Found:
    """Weighed neighbours of a batch.

    Attributes:
        targets: Items that the neighbours lead to [B, K], 0 where there is none.
        valid: [B, K].
        log_weights: Log of the retrieval distribution [B, K]; see
            :func:`~recbole_ext.modules.retriever.log_weights`.
        alpha: Share (or exponent) of the neighbours in the mixture [B], 0 for rows without any.
    """

    targets: Tensor
    valid: Tensor
    log_weights: Tensor
    alpha: Tensor

    @property
    def weights(self) -> Tensor:
        """The retrieval distribution [B, K]; zeros where there is no neighbour."""
        return self.log_weights.exp() * self.valid  # [B, K]


@dataclass(frozen=True)
class KLTerm:
    """The loss that pulls the neighbours' weights towards a target.

    Attributes:
        weight: 0 leaves it out; so does train_alpha 0, with which nothing is mixed.
        target: ``label`` (how likely the label is with a neighbour alone) or ``model`` (how
            much the recommender likes the neighbour's target). With ``label`` a row none of whose
            (kept) neighbours leads to the label has KL 0, but under ``vector``: all its
            neighbours are equally wrong, so they teach nothing. Under ``vector`` every neighbour
            moves the label's probability, and with ``model`` the label does not matter:
            there every row with a neighbour counts.
        temperature: Flattens the target.
    """

    weight: float
    target: str
    temperature: float


@dataclass(frozen=True)
class Quality:
    """How like a query its neighbours must be.

    Attributes:
        threshold: Cosine below which a neighbour is dropped; -1 keeps all.
        percentile: The same, as a percentile of the training pairs; 0 keeps all.
    """

    threshold: float
    percentile: float

    @property
    def is_choosy(self) -> bool:
        """Whether any neighbour can be dropped."""
        return self.threshold > -1 or self.percentile > 0


class RetrievalMix(nn.Module):
    """Weighs neighbours and mixes what they lead to into a recommender's prediction.

    What scores are mixed with are buffers, so that calibrated settings are part of every
    checkpoint. What the loss is mixed with is given, but for a learned temperature: which weights
    do best at the top of a list says little about what a retriever learns from.

    Args:
        retriever: Compares states.
        mix: ``log_linear``, ``probability``, ``vector``, or ``gate`` (probability with a learned
            alpha per row). The loss of ``log_linear`` is that of ``probability``, in which rows
            that the recommender has memorised count little (docs/ftragrec.md).
        alpha: Of the scores: share of the neighbours, or exponent where the mix is log-linear.
        train_alpha: Share of the neighbours in the loss.
        smoothing: See :class:`~recbole_ext.modules.mixing.MixSettings`.
        top_k: Neighbours that are used.
        kl: What the weights of neighbours are pulled towards.
        quality: Which neighbours are dropped.
    """

    alpha: Tensor
    n_neighbours: Tensor
    temperature: Tensor
    smoothing: Tensor

    def __init__(
        self,
        retriever: Retriever,
        *,
        mix: str,
        alpha: float,
        train_alpha: float,
        smoothing: float,
        top_k: int,
        kl: KLTerm,
        quality: Quality,
    ) -> None:
        super().__init__()
        self.retriever = retriever
        self.mix = mix
        self.gate = MixGate(train_alpha) if mix == "gate" else None
        self.train_alpha = train_alpha
        self.top_k = top_k
        self.kl = kl
        self.quality = quality
        self.register_buffer("alpha", torch.tensor(float(alpha)))
        self.register_buffer("n_neighbours", torch.tensor(top_k))
        self.register_buffer("temperature", torch.tensor(0.0))  # 0: the retriever's
        self.register_buffer("smoothing", torch.tensor(float(smoothing)))

    # ---- settings

    def use(self, settings: MixSettings) -> None:
        """Take these settings for scores from now on."""
        self.alpha.fill_(settings.alpha)
        self.n_neighbours.fill_(settings.top_k)
        self.temperature.fill_(settings.temperature)
        self.smoothing.fill_(settings.smoothing)

    def for_scores(self) -> MixSettings:
        """Return the settings that scores are mixed with."""
        temperature = float(self.temperature) or float(self.retriever.temperature.detach())
        return MixSettings(
            float(self.alpha), int(self.n_neighbours), temperature, float(self.smoothing)
        )

    def for_losses(self) -> MixSettings:
        """Return the settings that losses are mixed with, a learned temperature among them."""
        return MixSettings(self.train_alpha, self.top_k, self.retriever.temperature)

    def settings(self) -> dict[str, float]:
        """Return what calibration chooses, by name; a gate only starts at its alpha."""
        name = "alpha" if self.gate is None else "initial_alpha"
        alpha = float(self.alpha) if self.gate is None else self.train_alpha
        used = self.for_scores()
        found = {name: alpha, "top_k": used.top_k, "temperature": float(used.temperature)}
        return {**found, "smoothing": used.smoothing} if self.mix == "log_linear" else found

    def is_active(self) -> bool:
        """Return whether the neighbours have any share in the scores."""
        return self.gate is not None or bool(self.alpha > 0)

    # ---- neighbours

    def find(
        self, similarity: Tensor, near: Tensor, memory: Memory, settings: MixSettings
    ) -> Found:
        """Weigh neighbours by given similarities.

        Args:
            similarity: [B, K'], nearest first, of as many neighbours as are used or more.
            near: Places in ``memory`` [B, K'], negative where there is none.
            memory: Where the neighbours are from.
            settings: How they are weighed; a gate replaces its alpha.
        """
        similarity, near = similarity[:, : settings.top_k], near[:, : settings.top_k]  # [B, K]
        valid = near >= 0  # [B, K]
        if self.quality.is_choosy:
            valid = valid & (similarity.detach() >= self._least_similarity(memory))
        targets = memory.targets[near.clamp_min(0)].masked_fill(~valid, 0)  # [B, K]
        weighed = log_weights(similarity, valid, settings.temperature)  # [B, K]
        alpha = settings.alpha
        if self.gate is not None:
            alpha = self.gate(similarity, weighed.exp() * valid, valid)  # [B]
        return Found(targets, valid, weighed, alpha * valid.any(1))

    def weigh(self, h: Tensor, near: Tensor, memory: Memory) -> Found:
        """Weigh the neighbours [B, K] of states [B, D] for training, gradients on both sides."""
        keys = memory.states_at(near.clamp_min(0))  # [B, K, D]
        with full_precision(h.device):  # neighbours are too alike for the digits of 16 bits
            similarity = self.retriever.similarity(h.float(), keys)  # [B, K]
        return self.find(similarity, near, memory, self.for_losses())

    def _least_similarity(self, memory: Memory) -> float:
        if not self.quality.percentile:
            return self.quality.threshold
        least = memory.similarity_percentile(self.quality.percentile, self.top_k)
        return max(self.quality.threshold, least)

    # ---- losses

    def losses(
        self,
        h: Tensor,
        log_prob: Tensor,
        labels: Tensor,
        near: Tensor,
        memory: Memory,
        item_weight: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the mixture's -log p(label) and the KL term, means over all rows, unweighted.

        ``log_linear`` has the loss of ``probability``.

        Args:
            h: States [B, D].
            log_prob: The recommender's own log p(label) [B].
            labels: [B].
            near: Places of the neighbours [B, K], negative where there is none.
            memory: Where they are from.
            item_weight: [N, D]; item 0 is padding.
        """
        if self.mix == "vector":
            return self._vector_losses(h, labels, near, memory, item_weight)
        is_label = (memory.targets[near.clamp_min(0)] == labels[:, None]) & (near >= 0)  # [B, K]
        # Where no neighbour leads to the label the loss is the same for all weights: the retriever
        # is skipped there, which is most rows.
        weighed = is_label.any(1) | self._every_row_counts()  # [B]
        weighed[0] |= ~weighed.any()  # so that there is a gradient, be it zero
        rows = weighed.nonzero().squeeze(1)  # [b]
        found = self.weigh(h[rows], near[rows], memory)
        log_mass = mixing.label_log_mass(found.log_weights, found.targets, labels[rows])  # [b]
        log_mass = torch.full_like(log_prob, mixing.NEGLIGIBLE).index_put((rows,), log_mass)  # [B]
        alpha = self.train_alpha * (near >= 0).any(1)  # [B]
        alpha = alpha.index_put((rows,), found.alpha)  # [B]
        enhanced = -mixing.mixture_log_prob(log_prob, log_mass, alpha).mean()
        is_label = found.targets == labels[rows, None]  # [b, K], of what the threshold left
        alone = mixing.mixture_label_scores(log_prob[rows], is_label, found.alpha)  # [b, K]
        kl = self._kl(h[rows], found, alone, item_weight, is_label.any(1))
        return enhanced, kl * (len(rows) / len(h))

    def _vector_losses(
        self, h: Tensor, labels: Tensor, near: Tensor, memory: Memory, item_weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        found = self.weigh(h, near, memory)
        target_emb = item_weight[found.targets]  # [B, K, D]
        mixed = mixing.mix_vectors(h, found.weights, target_emb, found.alpha)  # [B, D]
        enhanced = F.cross_entropy(mixed @ item_weight[1:].T, labels - 1)
        alone = None
        if self._has_kl() and self.kl.target == "label":
            alone = mixing.vector_label_scores(h, target_emb, item_weight, labels, found.alpha)
        return enhanced, self._kl(h, found, alone, item_weight)

    def _kl(
        self,
        h: Tensor,
        found: Found,
        alone: Tensor | None,
        item_weight: Tensor,
        is_taught: Tensor | None = None,
    ) -> Tensor:
        """Return KL(retrieval || target), the mean over rows.

        Args:
            h: [B, D].
            found: The neighbours.
            alone: log p(label | neighbour k alone) [B, K], for ``kl_target: label``.
            item_weight: [N, D].
            is_taught: Rows [B] that ``kl_target: label`` says something about; the others are 0.
        """
        if not self._has_kl():
            return h.new_zeros(())
        valid = found.valid  # [B, K]
        if self.kl.target == "model" or alone is None:
            alone = torch.einsum("bd,bkd->bk", h, item_weight[found.targets])  # [B, K]
        elif is_taught is not None:
            valid = valid & is_taught[:, None]
        return mixing.retrieval_kl(found.log_weights, alone, valid, self.kl.temperature)

    def _has_kl(self) -> bool:
        """Return whether there is a KL term; where nothing is mixed, nothing is to be taught."""
        return bool(self.kl.weight) and self.train_alpha > 0

    def _every_row_counts(self) -> bool:
        """Return whether rows none of whose neighbours leads to the label must be weighed.

        A gate has a gradient there, a threshold may leave them without neighbours, hence with alpha
        0, and the model has a target for every row.
        """
        asks_model = bool(self.kl.weight) and self.kl.target == "model"
        return self.mix == "gate" or asks_model or self.quality.is_choosy

    # ---- scores

    def scores(
        self, h: Tensor, found: Found, item_weight: Tensor, smoothing: float = 1.0
    ) -> Tensor:
        """Return the mixture's scores: log p, or logits, up to a constant in each row.

        Args:
            h: States [B, D].
            found: Neighbours of the rows.
            item_weight: [N, D].
            smoothing: For the log-linear mix.

        Returns:
            [B, N]; -inf for the padding item. Rows with alpha 0 keep their logits bit for bit.
        """
        if self.mix == "vector":
            target_emb = item_weight[found.targets]  # [B, K, D]
            mixed = mixing.mix_vectors(h, found.weights, target_emb, found.alpha)  # [B, D]
            return item_logits(mixed, item_weight)  # [B, N]
        logits, parts = item_logits(h, item_weight), (found.weights, found.targets, found.alpha)
        if self.mix == "log_linear":
            return mixing.log_linear_scores(logits, *parts, smoothing)  # [B, N]
        return mixing.mixture_scores(logits, *parts)  # [B, N]


def item_logits(states: Tensor, item_weight: Tensor) -> Tensor:
    """Return h E^T [B, N] with the padding item at -inf."""
    logits = states @ item_weight.T  # [B, N]
    logits[:, 0] = -torch.inf
    return logits
