"""VIP5 with a small random T5: what it reads, what it computes, what trains and is kept."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rerankers.contracts import ITEMS, RerankerContract, TinyCorpus, tiny_batch
from torch.nn import functional as F

from recbole_ext.features.build import Building, Subject, build
from recbole_ext.features.encoded import Encoded
from recbole_ext.features.manifest import Source
from recbole_ext.modules.houlsby import Adapter, add_adapters
from recbole_ext.modules.vip5 import VisualProjection
from recbole_ext.rerankers.build import build_reranker
from recbole_ext.types import UserError

SMALL = {"show_progress": False, "adapter_reduction": 2, "device": "cpu", "epochs": 1}


class Vectors:
    """Vectors by item; of i38 and i39 there are none."""

    source = Source("fake", "1")

    def __init__(self, shape=(5,)) -> None:
        self.values = np.random.default_rng(4).normal(size=(38, *shape)).astype(np.float32)

    def encode(self, contents):
        values = self.values[[int(item[1:]) for item in contents]]
        return Encoded(values, None if values.ndim == 2 else np.ones(values.shape[:2], bool))


def save_feature(folder: Path, name: str = "clip", shape=(5,), dataset: str = "tiny", n=38) -> None:
    contents = {f"i{i}" if n == 38 else f"B{i}": f"i{i}" for i in range(38)}
    subject = Subject(name, "image", "item", dataset)
    how = Building("float32", show_progress=False)
    build(folder / dataset / name, contents, Vectors(shape), subject, how)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    save_feature(folder)
    return folder


@pytest.fixture
def given(vision_model, features):
    model = vision_model("t5")
    return {"model": model, "feature": "clip", "features_dir": str(features), **SMALL}


@pytest.fixture
def make(given):
    return lambda **more: build_reranker("vip5", {**given, **more}, TinyCorpus(), seed=1)


class TestContract(RerankerContract):
    name = "vip5"

    @pytest.fixture
    def given(self, given):
        return {**given, "learning_rate": 0.05}


def words_of(history, k):
    """The prompt as words; ids of items are their places, from 1."""
    words = "Given the following purchase history :".split()
    for place, item in enumerate(history):
        words += [","] * (place > 0) + [str(int(item[1:]) + 1)] + ["<extra_id_0>"] * k
    return words + "predict the next possible item to be purchased by the user ?".split()


@torch.no_grad()
def naive(reranker, history, item):
    """Log-likelihood of an item's number, token by token, each place of the prompt by itself."""
    model, k = reranker.model, reranker.settings["n_visual_tokens"]
    tokenizer, t5 = reranker._parts[1].tokenizer, reranker.model.t5
    vectors, shown, emb = Vectors().values, [], []
    for old in history:
        i = int(old[1:])
        vector = torch.from_numpy(vectors[i]) if i < 38 else torch.zeros(5)
        shown += list(model.visual(vector[None]))
    for number, word in enumerate(words_of(history, k), 1):
        if word == "<extra_id_0>":
            parts, category = [shown.pop(0)], 1
        else:
            ids = tokenizer(word, add_special_tokens=False)["input_ids"]
            parts, category = [t5.shared.weight[i] for i in ids], 0
        kind = model.category_embedding.weight[category]
        emb += [part + model.whole_word_embedding.weight[number] + kind for part in parts]
    end = tokenizer.eos_token_id
    first = model.whole_word_embedding.weight[0] + model.category_embedding.weight[0]
    emb.append(t5.shared.weight[end] + first)
    assert not shown
    hidden = t5.encoder(inputs_embeds=torch.stack(emb)[None]).last_hidden_state
    answer = [*tokenizer(str(int(item[1:]) + 1), add_special_tokens=False)["input_ids"], end]
    total, given = 0.0, [0]
    for token in answer:
        logits = t5(encoder_outputs=(hidden,), decoder_input_ids=torch.tensor([given])).logits
        total += float(F.log_softmax(logits[0, -1], -1)[token])
        given.append(token)
    return total


@pytest.mark.parametrize("k", [1, 3])
def test_a_score_is_the_likelihood_of_the_whole_number(k, make):
    reranker = make(n_visual_tokens=k, decode_batch_size=5, prompt_batch_size=4)
    batch = tiny_batch().without_targets()
    histories = [["i39"], *batch.histories[1:]]
    batch = replace(batch, histories=histories)
    scores = reranker.score(batch)
    for row in range(len(batch)):
        wanted = [naive(reranker, histories[row], item) for item in batch.candidates[row]]
        assert scores[row, : len(wanted)].tolist() == pytest.approx(wanted, abs=1e-4)
    assert scores[0, :8].std() > 0.01


def test_a_prompt_is_encoded_once_for_all_candidates(make):
    reranker = make(prompt_batch_size=4)
    seen = []
    encoder = reranker.model.t5.encoder
    encoder.register_forward_hook(lambda *_, inputs_of=seen: inputs_of.append(_[2][0].shape[0]))
    reranker.score(tiny_batch().without_targets())
    assert seen == [4, 2]  # six users in two batches


def test_only_the_pictures_of_the_history_are_seen(make, caplog):
    batch = tiny_batch().without_targets().rows([3])
    batch = replace(batch, histories=[["i2", "i39", "i3"]], candidates=[["i5", "i6"]])
    batch = replace(batch, scores=torch.zeros(1, 2))
    reranker = make(max_history=2)
    scores = reranker.score(batch)
    assert "1 items of histories have no vector in feature clip, and zeros in its" in caplog.text
    assert reranker.without == {"i39"}
    values = reranker._feature[0].values
    for item, is_seen in ((3, True), (2, False), (5, False)):  # i2 is beyond max_history
        other = make(max_history=2)
        changed = np.array(values)
        changed[item] += 1
        object.__setattr__(other._feature[0], "values", changed)
        assert torch.equal(other.score(batch), scores) != is_seen


def test_an_adapter_is_a_bottleneck_behind_every_sublayer(vision_model):
    folder = vision_model("t5")
    from transformers import T5ForConditionalGeneration

    adapter, x = Adapter(4, 2), torch.randn(3, 4)
    down, up = adapter.down, adapter.up
    z = x @ down.weight.T + down.bias
    z = z * 0.5 * (1 + torch.erf(z / 2**0.5))
    torch.testing.assert_close(adapter(x), x + z @ up.weight.T + up.bias)
    t5 = T5ForConditionalGeneration.from_pretrained(folder).eval()
    asked = {"input_ids": torch.tensor([[9, 8, 7]]), "decoder_input_ids": torch.tensor([[0, 5]])}
    plain = t5(**asked).logits
    adapters = add_adapters(t5, 2)
    assert len(adapters) == 2 * 2 + 2 * 3  # two layers of two sub-layers, and two of three
    assert not torch.allclose(t5(**asked).logits, plain, atol=1e-6)
    for one in adapters:
        torch.nn.init.zeros_(one.up.weight)
    torch.testing.assert_close(t5(**asked).logits, plain)


def test_the_projection_is_two_layers_and_a_norm_over_all_tokens():
    projection, x = VisualProjection(5, 4, 3), torch.randn(2, 5)
    first, _, second, norm = projection.layers
    y = torch.tanh(x @ first.weight.T + first.bias) @ second.weight.T + second.bias  # [2, 12]
    y = y / (y.square().mean(1, keepdim=True) + 1e-6).sqrt() * norm.weight
    torch.testing.assert_close(projection(x), torch.cat([y[0].view(3, 4), y[1].view(3, 4)]))


def test_what_is_new_trains_and_the_t5_only_if_it_is_to(make, tmp_path):
    batch = tiny_batch()
    for train_all in (False, True):
        reranker = make(train_all=train_all, epochs=6, learning_rate=0.02, stopping_step=9)
        before = {name: p.clone() for name, p in reranker.model.named_parameters()}
        told = reranker.fit(batch, batch.rows([1]), tmp_path)
        reranker.save(tmp_path)  # and the state of the training goes
        assert told["n_train"] == 4 and told["n_left_out"] == 2  # two targets are no items
        assert told["train_loss"][-1] < told["train_loss"][0]
        moved = {
            name
            for name, p in reranker.model.named_parameters()
            if not torch.equal(p, before[name])
        }
        new = {n for n in before if ".adapter." in n or not n.startswith("t5.")}
        assert moved & new == new and bool(moved - new) == train_all
    assert "t5.shared.weight" in moved


def test_training_that_was_broken_off_goes_on(make, tmp_path):
    batch, more = tiny_batch(), {"epochs": 3, "learning_rate": 0.02, "train_batch_size": 2}
    whole, broken, again = (make(**more) for _ in range(3))
    for name in "ab":
        (tmp_path / name).mkdir()
    whole.fit(batch, None, tmp_path / "a")
    calls = []

    def loss(rows, of=broken.loss):
        calls.append(rows)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return of(rows)

    broken.loss = loss
    with pytest.raises(KeyboardInterrupt):
        broken.fit(batch, None, tmp_path / "b")
    again.fit(batch, None, tmp_path / "b")
    seen = batch.without_targets()
    torch.testing.assert_close(again.score(seen), whole.score(seen), rtol=0, atol=0)


def test_the_state_of_a_training_from_another_t5_is_refused(make, tmp_path):
    batch = tiny_batch().rows([1, 2])
    make(train_all=True).fit(batch, None, tmp_path)
    with pytest.raises(UserError, match="training.pt is the state of a training with other"):
        make(train_all=True, random_weights=True).fit(batch, None, tmp_path)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"feature": None}, "set feature to the name of one .recbole-ext features image"),
        ({"feature": "clap"}, "there is no feature 'clap' in .* did you mean 'clip'"),
        ({"feature": "patches"}, "has 2 x 5 numbers for each item, and vip5 reads one vector"),
        ({"feature": "foreign"}, "has a vector for none of the 40 items of 'tiny'"),
        ({"model": "qwen_vl"}, "is a model of type qwen3_vl, and vip5 is a T5; name one"),
        ({"model": "nowhere"}, "cannot load a T5 from '.*nowhere' .* give a folder"),
        ({"n_visual_tokens": 0}, "n_visual_tokens takes numbers from 1, not 0"),
        ({"epochs": 0}, "epochs takes numbers from 1, not 0"),
        ({"clip_grad_norm": 0.0}, "clip_grad_norm takes numbers above 0, not 0.0"),
        ({"warmup_ratio": -0.1}, "warmup_ratio takes numbers from 0, not -0.1"),
        ({"max_history": 200}, "max_history 200 and n_visual_tokens 2 has 819 words, .* 512"),
    ],
)
def test_what_cannot_be_is_one_sentence(more, sentence, given, make, vision_model, tmp_path):
    save_feature(tmp_path)
    save_feature(tmp_path, "patches", (2, 5))
    save_feature(tmp_path, "foreign", n=0)
    if more.get("model") == "nowhere":
        more = {"model": str(tmp_path / "nowhere")}
    elif "model" in more:
        more = {"model": vision_model(more["model"])}
    with pytest.raises(UserError, match=sentence):
        make(features_dir=str(tmp_path), **more).score(tiny_batch().without_targets())


def test_weights_of_other_settings_or_items_are_refused(make, given, tmp_path):
    make().save(tmp_path)
    with pytest.raises(UserError, match="was trained with other n_visual_tokens .2, here 1"):
        make(n_visual_tokens=1).load(tmp_path)
    with pytest.raises(UserError, match="was trained with other T5"):
        make(random_weights=True).load(tmp_path)

    class Other(TinyCorpus):
        def counts(self):
            return dict.fromkeys(reversed(ITEMS), 1)

    with pytest.raises(UserError, match="was trained with other items"):
        build_reranker("vip5", given, Other()).load(tmp_path)
    (tmp_path / "vip5.pt").write_bytes(b"PK no more")
    with pytest.raises(UserError, match=r"vip5.pt is damaged"):
        make().load(tmp_path)
    with pytest.raises(UserError, match="item 'i77' is not in the catalogue"):
        batch = tiny_batch().without_targets().rows([1])
        make().score(replace(batch, candidates=[["i77", "i1"]]))


@pytest.mark.gpu
def test_scores_on_a_gpu_are_those_on_the_cpu(make):
    batch = tiny_batch().without_targets()
    on_gpu = make(device="cuda").score(batch)
    torch.testing.assert_close(on_gpu, make().score(batch), rtol=1e-3, atol=1e-3)


def test_nothing_to_train_on_is_said(make, tmp_path):
    batch = tiny_batch().rows([0, 3])  # whose targets are i99
    with pytest.raises(UserError, match="no row has a target in the catalogue"):
        make().fit(batch, None, tmp_path)


def test_without_transformers_the_extra_is_named(monkeypatch, features):
    monkeypatch.setitem(sys.modules, "transformers", None)
    given = {"feature": "clip", "features_dir": str(features)}
    with pytest.raises(UserError, match=r"vip5 needs transformers .*'recbole-ext\[llm\]'"):
        build_reranker("vip5", given, TinyCorpus()).score(tiny_batch().without_targets())
