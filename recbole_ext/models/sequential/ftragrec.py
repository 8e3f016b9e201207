"""FTRagRec: retrieval-augmented sequential recommendation on a DuoRec warm start.

A pretrained, frozen encoder turns every training prefix into a state; the memory keeps these states
with the items that followed. For a query the nearest states are retrieved, a small trainable
network (the retriever) says how much each counts, and the items that followed them are mixed into
the encoder's own prediction.

What differs from the original, and why (docs/ftragrec.md says more): distributions are mixed and
not vectors (``mix: log_linear``), because an average of item vectors hardly moves the query; the
retriever is applied on the fly to the query and to what was retrieved, because otherwise the loss
has no gradient; the query's own rows are left out, because otherwise it finds itself; how the
scores are mixed is chosen on validation. properties/model/FTRagRec-original.yaml keeps the
original's formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor

from recbole_ext.data.prefix_dataset import ROW_ID, PrefixDataset
from recbole_ext.data.rows import histories_of
from recbole_ext.data.vocabulary import vocabulary_hash
from recbole_ext.models.base import ExtRecommender
from recbole_ext.models.explanation import Neighbour, describe_neighbours
from recbole_ext.models.ftragrec_calibration import calibrate_mix
from recbole_ext.models.ftragrec_parts import build_keeper, build_retrieval
from recbole_ext.models.ftragrec_settings import (
    calibration_grid,
    check_run,
    check_values,
    freeze_parameters,
)
from recbole_ext.models.sas_encoder import build_sas_encoder
from recbole_ext.models.warm_start import load_warm_start
from recbole_ext.modules.evaluating import evaluating
from recbole_ext.modules.memory import Memory, MemoryRows
from recbole_ext.modules.retrieval_mix import item_logits
from recbole_ext.types import Losses, UserError


class FTRagRec(ExtRecommender, SequentialRecommender):
    """A frozen encoder, a memory of training prefixes, and a small retriever between them."""

    dataset_class = PrefixDataset
    history_fields = ()
    warm_start = "DuoRec"
    other_parameter_name = ("is_calibrated",)  # saved with the weights
    memory_weights: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        check_values(config, len(dataset.inter_feat))
        rows = self._rows_of(dataset)
        self.enhanced_rec_weight = config["enhanced_rec_weight"]
        self.use_calibration = config["calibrate"] == "valid"
        self.is_calibrated = False
        self.calibrate_users = config["calibrate_users"]
        self.calibrate_grid = calibration_grid(config)
        self.mask_history = bool(config["mask_history"])
        self.memory_include_valid = config["memory_include_valid"]
        self.encoder = build_sas_encoder(config, self.n_items, self.max_seq_length)
        self.retrieval = build_retrieval(config)
        self.tokens = [dataset.field2id_token[field] for field in (self.USER_ID, self.ITEM_ID)]
        if config["pretrained_path"]:  # after all initialisation, so that nothing undoes it
            self._load_warm_start(config, dataset)
        freeze_parameters(self, config["freeze"])
        # of what it did and not of how it is spelled; callbacks that freeze do so later
        self.is_frozen = not any(p.requires_grad for p in self.encoder.parameters())
        self.refresh_interval = config["retriever_update_interval"] or (10 if self.is_frozen else 1)
        view = self.retrieval.retriever.blocks
        self.keeper = build_keeper(config, rows, self.encoder, view, is_frozen=self.is_frozen)
        self.register_buffer("memory_weights", self.keeper.snapshot())

    @classmethod
    def check_settings(cls, config: Any, train_dataset: Any) -> None:
        """Refuse settings that cannot be meant, and a run that lacks what they need.

        The constructor checks the values only: a run that is loaded has neither callbacks nor a
        warm start, and another trainer has its own way to do what the callbacks do.
        """
        if train_dataset is not None:  # of which a memory has no more rows
            check_values(config, len(train_dataset.inter_feat))
        check_run(config)

    @property
    def item_weight(self) -> Tensor:
        """Item embeddings [N, D]."""
        return self.encoder.item_embedding.weight

    def train(self, mode: bool = True) -> FTRagRec:
        """Set the mode; a frozen encoder stays without dropout."""
        super().train(mode)
        if self.is_frozen:
            self.encoder.eval()
        return self

    def encode(self, interaction: Any) -> Tensor:
        """Return the state of each history, [B, D]."""
        return self.encoder(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])

    def losses(self, interaction: Any) -> Losses:
        """Return ``rec`` (the encoder's cross-entropy), ``enhanced`` (the mixture's) and ``kl``.

        The last two are weighted. With the encoder frozen ``rec`` is a constant without gradient.
        """
        if ROW_ID not in interaction:
            raise UserError(
                f"FTRagRec: the training batch has no '{ROW_ID}'; "
                "build the data with FTRagRec.dataset_class (PrefixDataset)"
            )
        memory = self.keeper.training(self.memory_weights)
        labels = interaction[self.POS_ITEM_ID]  # [B]
        places = memory.place[interaction[ROW_ID]]  # [B]
        h, log_prob = self._states(interaction, memory, places)  # [B, D], [B]
        near = memory.neighbours_at(places, self.retrieval.top_k)  # [B, K]
        enhanced, kl = self.retrieval.losses(h, log_prob, labels, near, memory, self.item_weight)
        found = {"rec": -log_prob.mean(), "enhanced": self.enhanced_rec_weight * enhanced}
        weight = self.retrieval.kl.weight
        return {**found, "kl": weight * kl} if weight else found

    def predict(self, interaction: Any) -> Tensor:
        """Return the score of one item for each history, [B]."""
        if not self.retrieval.is_active():
            item_emb = self.encoder.item_embedding(interaction[self.ITEM_ID])  # [B, D]
            return (self.encode(interaction) * item_emb).sum(-1)  # [B]
        # sampled evaluation repeats a history for each of its candidates
        first, row = self._distinct_queries(interaction)  # [b], [B]
        scores = self.full_sort_predict(interaction[first])  # [b, N]
        return scores[row, interaction[self.ITEM_ID]]  # [B]

    @torch.no_grad()
    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Return the scores of all items [B, N]: log p up to a constant in each row.

        With alpha 0 they are DuoRec's, bit for bit.
        """
        h = self.encode(interaction)  # [B, D]
        if not self.retrieval.is_active():
            return item_logits(h, self.item_weight)  # [B, N]
        memory, settings = self.keeper.scoring(), self.retrieval.for_scores()
        similarity, near = self.search(h, interaction, memory, settings.top_k)  # [B, K] each
        found = self.retrieval.find(similarity, near, memory, settings)
        return self.retrieval.scores(h, found, self.item_weight, settings.smoothing)

    def refresh_memory(self) -> None:
        """Rebuild the memory from the current weights, for training and for scoring."""
        self.memory_weights.copy_(self.keeper.snapshot())
        self.keeper.training(self.memory_weights)
        self.keeper.scoring()

    def extend_memory(self, valid_data: Any) -> None:
        """Add the validation pairs to the memory, for the test (``memory_include_valid``)."""
        self.keeper.extend(self._rows_of(valid_data._dataset))

    def calibrate(self, valid_data: Any) -> dict[str, float]:
        """Choose how the scores are mixed on validation; see :func:`calibrate_mix`."""
        return (
            calibrate_mix(self, valid_data) if self.use_calibration else self.retrieval.settings()
        )

    @torch.no_grad()
    def explain(
        self, user: int | None = None, history: Sequence[int] | None = None
    ) -> list[Neighbour]:
        """Return the neighbours behind the list of a user or of a history, the heaviest first.

        They are training rows, unless the memory was extended; where their ``alpha`` is 0 the list
        is the encoder's alone.

        Args:
            user: Internal user id, whose own rows ``exclude`` may leave out. Alone it stands for
                the user's training history.
            history: Internal item ids, oldest first.

        Raises:
            UserError: Neither is given, or the user has no training row.
        """
        rows, device = self.keeper.rows, self.item_weight.device
        items = rows.history(user) if history is None and isinstance(user, int) else history or []
        if not all(isinstance(item, int) and 0 < item < self.n_items for item in items):
            raise UserError(
                f"explain: history takes internal item ids, 1 to {self.n_items - 1}; "
                "dataset.token2id(dataset.iid_field, tokens) gives them"
            )
        if user is not None and not isinstance(user, int):
            raise UserError(
                f"explain: user takes an internal id, not {user!r}; "
                "dataset.token2id(dataset.uid_field, token) gives it"
            )
        if not items:
            raise UserError(
                f"explain: user {user} has no training history; give a history with items"
            )
        item_seq = torch.tensor([items[-self.max_seq_length :]], device=device)  # [1, L]
        memory = self.keeper.scoring()
        with evaluating(self):
            h = self.encoder(item_seq, torch.tensor([item_seq.shape[1]], device=device))  # [1, D]
        asker = {self.USER_ID: torch.tensor([rows.n_users if user is None else user])}
        settings = self.retrieval.for_scores()
        similarity, near = self.search(h, asker, memory, settings.top_k)  # [1, K] each
        found = self.retrieval.find(similarity, near, memory, settings)
        alpha = float(found.alpha[0])
        return describe_neighbours(
            rows, near[0], similarity[0], found.weights[0], alpha, *self.tokens
        )

    def result_extra(self) -> dict[str, Any]:
        """Return what ``result.json`` says about the retrieval, with the recall of its index."""
        if self.keeper.report:
            self.keeper.measure_recall(self.retrieval.top_k)
        settings = {"mix": self.retrieval.mix, "is_calibrated": self.is_calibrated}
        included = {"memory_include_valid": self.memory_include_valid}
        included["mapped_mib"] = self.keeper.room.most_mapped_mib
        report = {**settings, **self.retrieval.settings(), **included, **self.keeper.report}
        return {"retrieval": report}

    def _load_warm_start(self, config: Any, dataset: Any) -> None:
        """Take the encoder of another run, or of a foreign checkpoint, whose items are these."""
        # as given, not as RecBole has rewritten it: so the file has the settings too
        settings = getattr(config, "resolved", config)
        fingerprint = getattr(dataset, "fingerprint", None)  # RecBole's own build sets none
        item_hash, path = vocabulary_hash(self.tokens[1]), config["pretrained_path"]
        report = load_warm_start(self.encoder, path, item_hash, settings, fingerprint)
        self.logger.info("%s", report)

    def _rows_of(self, dataset: Any) -> MemoryRows:
        rows = dataset.inter_feat
        return MemoryRows(
            histories_of(rows, self.ITEM_SEQ),
            rows[self.ITEM_SEQ_LEN],
            rows[self.POS_ITEM_ID],
            rows[self.USER_ID],
            rows[dataset.time_field] if dataset.time_field in rows else None,
        )

    def _states(self, interaction: Any, memory: Memory, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states [B, D] and log p(label) [B]: looked up if frozen, else computed."""
        if not self.is_frozen:
            h = self.encode(interaction)  # [B, D]
            logits = h @ self.item_weight[1:].T  # [B, N - 1]
            labels = interaction[self.POS_ITEM_ID] - 1  # [B]
            return h, -F.cross_entropy(logits, labels, reduction="none")
        if any(parameter.requires_grad for parameter in self.encoder.parameters()):
            raise UserError(
                "a frozen encoder's states are looked up once and for all, but something "
                "unfroze it; set freeze: none and let the Freeze callback say when it trains"
            )
        return memory.states_at(places), memory.label_log_prob(self.item_weight)[places]

    def search(self, h: Tensor, interaction: Any, memory: Memory, k: int) -> tuple[Tensor, Tensor]:
        """Return similarity and places [B, K] of what the queries may find.

        The first K of ``top_k``, so that calibration, training and scoring see the same ones: how
        many are asked for changes which ones are drawn at random, or met in a graph.
        """
        row_id = interaction[ROW_ID] if ROW_ID in interaction else None
        n_asked = max(k, self.retrieval.top_k)
        similarity, near = memory.search(h, n_asked, interaction[self.USER_ID], row_id)
        return similarity[:, :k], near[:, :k]

    def _distinct_queries(self, interaction: Any) -> tuple[Tensor, Tensor]:
        """Return a row [b] of each query that differs, and each row's place [B] among them."""
        fields = [self.USER_ID, self.ITEM_SEQ_LEN, *([ROW_ID] if ROW_ID in interaction else [])]
        columns = [*(interaction[field][:, None] for field in fields), interaction[self.ITEM_SEQ]]
        rows, place = torch.cat(columns, dim=1).unique(dim=0, return_inverse=True)  # [b, .], [B]
        first = place.new_empty(len(rows))  # [b]
        first[place] = torch.arange(len(place), device=place.device)  # whichever comes last
        return first, place
