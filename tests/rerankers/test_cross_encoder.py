"""The cross-encoder with a tiny BERT that is made here."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rerankers.contracts import RerankerContract, TinyCorpus, tiny_batch

from recbole_ext.rerankers.build import build_reranker
from recbole_ext.types import UserError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "title", "of", ";", *map(str, range(41)), "i39"]


def save_model(folder: Path, n_labels: int | None = 1) -> Path:
    """Save a BERT of one layer; without an output where ``n_labels`` is ``None``."""
    pytest.importorskip(
        "sentence_transformers", reason="needs sentence-transformers (recbole-ext[text])"
    )
    import tokenizers
    import transformers
    from tokenizers.processors import TemplateProcessing

    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]")
    )
    words.normalizer = tokenizers.normalizers.Lowercase()
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    )
    torch.manual_seed(5)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        num_hidden_layers=1,
        max_position_embeddings=64,
        initializer_range=0.5,
        hidden_dropout_prob=0.0,  # of so small a network it would hide what is learned
        attention_probs_dropout_prob=0.0,
        num_labels=n_labels or 2,
        **sizes,
    )
    kind = transformers.BertModel if n_labels is None else None
    model = (kind or transformers.BertForSequenceClassification)(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


class TestContract(RerankerContract):
    name = "cross_encoder"

    @pytest.fixture
    def given(self, folder: Path) -> dict[str, Any]:
        return {"model": str(folder), "device": "cpu", "learning_rate": 0.01, "n_negatives": 3}


def build(folder: object, **more: Any) -> Any:
    given = {"model": str(folder), "device": "cpu", **more}
    return build_reranker("cross_encoder", given, TinyCorpus(), seed=1)


def test_a_score_is_the_models_logit_of_the_two_texts(folder):
    """Through transformers alone, a pair at a time."""
    import transformers

    batch = tiny_batch().rows([2, 5])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    scores = build(folder, max_history=2).score(batch.without_targets())
    for row in range(2):
        latest_first = batch.histories[row][::-1][:2]
        told = "; ".join(batch.texts.get(item, item) for item in latest_first)
        for place, item in enumerate(batch.candidates[row]):
            words = tokenizer(told, batch.texts.get(item, item), return_tensors="pt")
            with torch.no_grad():
                expected = model(**words).logits.item()
            assert scores[row, place].item() == pytest.approx(expected, abs=1e-5)


def test_training_learns_what_texts_tell_and_keeps_the_best_epoch(folder, tmp_path):
    """The target of every user is the one whose text is '40'."""
    batch = tiny_batch(24, n=5)
    batch = dataclasses.replace(
        batch,
        candidates=[[*row[:-1], "good"] for row in batch.candidates],
        targets=[["good"]] * len(batch),
        texts={**{item: "title" for item in batch.texts}, "good": "40"},
    )
    train, valid = batch.rows(range(16)), batch.rows(range(16, 24))
    reranker = build(folder, epochs=6, learning_rate=0.005, n_negatives=4, train_batch_size=2)
    told = reranker.fit(train, valid, tmp_path)
    assert told["losses"][-1] < 0.5 * told["losses"][0]
    assert reranker._mrr(valid) == pytest.approx(max(told["valid_mrr"])) == 1.0


def test_a_model_whose_output_nobody_trained_scores_after_training_alone(tmp_path):
    reranker = build(save_model(tmp_path / "bare", n_labels=None))
    with pytest.raises(UserError, match="is a BertModel, whose scores nobody has trained; train"):
        reranker.score(tiny_batch().without_targets())
    reranker.fit(tiny_batch(), None, tmp_path)
    assert reranker.score(tiny_batch().without_targets())[0].isfinite().all()


def test_what_is_no_cross_encoder_is_one_sentence(tmp_path):
    save_model(tmp_path / "two", n_labels=2)
    batch = tiny_batch().without_targets()
    with pytest.raises(UserError, match="gives 2 numbers for a pair, and a score is one"):
        build(tmp_path / "two").score(batch)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty' cannot be loaded"):
        build(tmp_path / "empty").score(batch)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"epochs": 0}, "epochs takes numbers from 1, not 0"),
        ({"n_negatives": 0}, "n_negatives takes numbers from 1, not 0"),
        ({"max_length": 0}, "max_length takes numbers from 1, not 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_one_sentence(more, sentence):
    with pytest.raises(UserError, match=sentence):
        build("folder", **more)


def test_more_than_the_model_reads_is_refused(folder):
    batch = tiny_batch().without_targets()
    with pytest.raises(UserError, match="max_length is 65, and model .* reads 64 tokens"):
        build(folder, max_length=65).score(batch)
    assert build(folder, max_length=64).score(batch)[0].isfinite().all()


def test_a_model_must_be_named():
    with pytest.raises(UserError, match="cross_encoder takes a model: cross_encoder:<hub id"):
        build_reranker("cross_encoder", {}, TinyCorpus())


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UserError, match=r"pip install 'recbole-ext\[text\]'"):
        build("folder").score(tiny_batch().without_targets())
