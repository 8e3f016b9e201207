"""The GRU encoder against RecBole's GRU4Rec, layer by layer."""

from __future__ import annotations

import torch
from recbole.model.sequential_recommender.gru4rec import GRU4Rec
from torch import nn

from recbole_ext.modules.gru import GRUEncoder


class RecBoleGRU4Rec(GRU4Rec):
    """RecBole's forward pass, without config and data."""

    def __init__(self, n_items, size, inner):
        nn.Module.__init__(self)
        self.item_embedding = nn.Embedding(n_items, size, padding_idx=0)
        self.emb_dropout = nn.Dropout(0.0)
        self.gru_layers = nn.GRU(size, inner, 2, bias=False, batch_first=True)
        self.dense = nn.Linear(inner, size)


def test_it_is_recboles():
    torch.manual_seed(0)
    theirs = RecBoleGRU4Rec(20, 6, 10)
    ours = GRUEncoder(n_items=20, hidden_size=6, inner_size=10, n_layers=2, dropout_prob=0.0)
    ours.load_state_dict(theirs.state_dict())
    lengths = torch.tensor([5, 1, 3])
    item_seq = torch.randint(1, 20, (3, 5)) * (torch.arange(5) < lengths[:, None])
    torch.testing.assert_close(ours(item_seq, lengths), theirs(item_seq, lengths))


def test_padding_starts_as_zeros():
    assert (GRUEncoder(n_items=5).item_embedding.weight[0] == 0).all()
