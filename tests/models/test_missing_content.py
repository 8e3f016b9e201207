"""Users and items without content: what the preference retrievers make of them, by the docs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.models import test_multimodalpreferenceretriever as multimodal
from tests.models import test_textpreferenceretriever as text
from tests.models import test_ur4rec as ur4rec
from tests.models.feature_help import item_feature


class Plain(text.Text):
    """Items 3, 4 and 17 have no text; the prefix is a mean."""

    settings = {"profile_pooling": "mean"}

    def make_config(self, data_path, folder, **more):
        feature = item_feature(folder, "sparse", missing=(3, 4, 17))
        return super().make_config(data_path, folder, **{"text_feature": feature, **more})


def ids_of(loader, *tokens: str) -> list[int]:
    """Return internal ids of items."""
    return [loader.dataset.token2id("item_id", token) for token in tokens]


def user_of(net, *items: int) -> torch.Tensor:
    """Return the vector of a user who chose some items [D]."""
    seq = torch.zeros(1, net.max_seq_length, dtype=torch.long)  # [1, L]
    seq[0, : len(items)] = torch.tensor(items)
    batch = {net.ITEM_SEQ: seq, net.ITEM_SEQ_LEN: torch.tensor([len(items)])}
    with torch.no_grad():
        return net.eval().encode(batch)[0]


def test_an_item_without_text_is_the_learned_vector_and_its_own_difference(
    tiny_data_path, tmp_path
):
    net, (loader, _, _) = text.build(tiny_data_path, tmp_path, Plain())
    three, four, other = ids_of(loader, "i3", "i4", "i5")
    with torch.no_grad():
        net.content.delta.weight[four] = 0.3
    missing = net.content.fusion.missing.detach()  # [D]
    found = net.encode_items(torch.tensor([three, four])).detach()  # [2, D]
    assert torch.allclose(found[0], F.normalize(missing, dim=0), atol=1e-6)
    assert torch.allclose(found[1], F.normalize(missing + 0.3, dim=0), atol=1e-6)
    before = net.eval().encode_items(torch.arange(net.n_items)).detach()
    net.content.sources["text"].values[[three, four]] = 5.0  # the mask decides
    net.train()
    after = net.encode_items(torch.arange(net.n_items)).detach()
    assert torch.equal(before, after) and not torch.equal(before[other], before[three])


def test_items_without_text_take_no_part_in_a_user(tiny_data_path, tmp_path):
    net, (loader, _, _) = text.build(tiny_data_path, tmp_path, Plain())
    three, four, five, six = ids_of(loader, "i3", "i4", "i5", "i6")
    assert torch.allclose(user_of(net, five, three, six), user_of(net, five, six), atol=1e-6)
    missing = F.normalize(net.user_profile.missing.detach(), dim=0)
    for items in ([three], [four, three], []):  # nothing is known: all such users are alike
        assert torch.allclose(user_of(net, *items), missing, atol=1e-6)


def test_a_user_without_text_is_the_prefix(tiny_data_path, tmp_path):
    contract = text.Text()
    contract.stored = True
    net, (_, _, test) = text.build(tiny_data_path, tmp_path, contract, profile="stored")
    batch = next(iter(test))[0]
    of_two = batch[net.USER_ID] == test.dataset.token2id("user_id", "u2")  # who has no text
    with torch.no_grad():
        net.eval()
        both = net.encode(batch)
        net.user_text = None
        alone = net.encode(batch)
    same = (both - alone).abs().amax(1) < 1e-6
    assert of_two.any() and same[of_two].all() and not same.all()


@pytest.mark.parametrize(
    ("tokens", "settings"),
    [
        ((0, 0), {"fusion": "late"}),
        ((0, 0), {"fusion": "late", "late": "attention"}),
        ((0, 0), {"fusion": "late", "late": "concat"}),
        ((3, 4), {"fusion": "early"}),
        ((3, 4), {"fusion": "cross_modal"}),
        ((3, 4), {"fusion": "token"}),
    ],
    ids=str,
)
def test_a_modality_that_an_item_lacks_takes_no_part(tiny_data_path, tmp_path, tokens, settings):
    net, (loader, _, _) = multimodal.build(tiny_data_path, tmp_path, *tokens, **settings)
    ids = ids_of(loader, "i3", "i5", "i17", "i6")  # without text, without image, without both
    names = list(net.content.sources)
    present = net.content.present(torch.tensor(ids))
    assert names == ["text", "image"]
    assert present.tolist() == [[False, True], [True, False], [False, False], [True, True]]
    with torch.no_grad():
        net.eval()
        before = net.content(torch.tensor(ids))
        for name, weight in net.content.projections.items():
            weight.weight.neg_()
            after = net.content(torch.tensor(ids))
            has = present[:, names.index(name)]
            assert torch.equal((before - after).abs().amax(1) > 1e-6, has)
            weight.weight.neg_()
    assert before.isfinite().all()


@pytest.mark.parametrize("stored", [False, True])
def test_a_memory_has_what_is_there_and_may_be_empty(tiny_data_path, tmp_path, stored):
    net, (loader, _, _) = ur4rec.build(tiny_data_path, tmp_path, stored=stored, memory_items=2)
    net.eval()
    three, seventeen, five = ids_of(loader, "i3", "i17", "i5")
    two = loader.dataset.token2id("user_id", "u2")  # who has no text
    seq = torch.zeros(2, net.max_seq_length, dtype=torch.long)  # [2, L]
    seq[0, :2], seq[1, :2] = torch.tensor([three, seventeen]), torch.tensor([three, five])
    batch = {net.ITEM_SEQ: seq, net.ITEM_SEQ_LEN: torch.tensor([2, 2])}
    batch[net.USER_ID] = torch.tensor([two, two])
    _, mask = net.memory(batch)
    assert mask[:, -2:].tolist() == [[False, False], [True, False]]  # the last item first
    assert not stored or not mask[:, 0].any()
    with torch.no_grad():
        before = net.encode(batch)
        for source in filter(None, (net.texts, net.user_texts)):
            source.values.neg_()
        after = net.encode(batch)
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])
    assert before.isfinite().all()


def test_all_of_them_are_ranked(tiny_data_path, tmp_path):
    for model, build in (("text", text.build), ("ur4rec", ur4rec.build)):
        net, (loader, _, test) = build(tiny_data_path, tmp_path / model)
        with torch.no_grad():
            scores = net.eval().full_sort_predict(next(iter(test))[0]).numpy()
        assert np.isfinite(scores[:, ids_of(loader, "i3", "i17")]).all()
