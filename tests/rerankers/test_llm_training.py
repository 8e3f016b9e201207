"""Training: its losses, its order, where it stops, how it goes on, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from rerankers.contracts import TinyCorpus, tiny_batch
from torch.nn import functional as F

from recbole_ext.rerankers.build import build_reranker
from recbole_ext.rerankers.llm.gradients import check_gradients
from recbole_ext.rerankers.llm.settings import check_settings, training_of
from recbole_ext.rerankers.llm.training import FILE, Trainer
from recbole_ext.types import UserError

QUICK = {"show_progress": False, "learning_rate": 0.02, "lora_dropout": 0.1, "epochs": 3}


def ranker(folder, **settings):
    """A reranker of the tiny model, or one that is behind a server and so loads nothing."""
    engine = {"engine": "server"} if folder is None else {"model": str(folder)}
    return build_reranker("qwen", {**engine, **QUICK, **settings}, TinyCorpus(), seed=1)


def rows_of(n=12, n_candidates=6):
    """Users of whom each has a target among candidates."""
    batch = tiny_batch(n, n_candidates, seed=8)
    return replace(batch, targets=[[row[-1]] for row in batch.candidates])


@pytest.fixture
def folder(tiny_qwen):
    pytest.importorskip("peft", reason="needs the extra [lora]")
    return tiny_qwen


def trainer_of(reranker, rows, **changed):
    engine, mode = reranker._trainable(), reranker.mode
    how = replace(training_of(reranker.settings), **changed)
    return Trainer(engine, mode.labels, lambda r, e: mode.examples(rows, r, e), len(rows), how)


def trained_weights(reranker):
    named = reranker.engine.model.named_parameters()
    return {name: p.detach().clone() for name, p in named if p.requires_grad}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("mode", ["listwise", "pointwise"])
def test_the_loss_is_the_cross_entropy_over_the_labels_or_over_all_tokens(mode, folder):
    reranker = ranker(folder, scoring=mode)
    rows = rows_of(4)
    examples = [e for row in range(4) for e in reranker.mode.examples(rows, row, 0)]
    assert len({example.n_labels for example in examples}) > (mode == "listwise")
    for_labels, for_tokens = (
        trainer_of(reranker, rows, loss=loss).loss(examples).item() for loss in ("candidates", "lm")
    )
    engine = reranker.engine
    expected = {"candidates": [], "lm": []}
    for example in examples:
        ids = torch.tensor([engine.reader.encode(example.prompt)])
        logits = engine.model(ids).logits[0, -1].detach()  # [V]
        names = reranker.mode.labels[: example.n_labels]
        tokens = engine.tokenizer.convert_tokens_to_ids(list(names))
        of_labels = logits[tokens].log_softmax(0)[example.answer]
        expected["candidates"].append(-of_labels)
        expected["lm"].append(-logits.log_softmax(0)[tokens[example.answer]])
    assert for_labels == pytest.approx(torch.stack(expected["candidates"]).mean().item(), rel=1e-4)
    assert for_tokens == pytest.approx(torch.stack(expected["lm"]).mean().item(), rel=1e-4)


def test_accumulated_batches_step_as_one_large_batch(folder):
    rows = rows_of(6)
    weights = []
    for batch_size, accumulation in ((6, 1), (2, 3), (4, 2)):
        reranker = ranker(folder, lora_dropout=0.0)
        how = {"batch_size": batch_size, "accumulation_steps": accumulation}
        trainer_of(reranker, rows, **how)._step(range(6))
        weights.append(trained_weights(reranker))
    for other in weights[1:]:
        for name, value in weights[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5)


def test_the_learning_rate_rises_in_the_warm_up_and_falls_to_nothing(folder):
    reranker = ranker(folder)
    trainer = trainer_of(reranker, rows_of(10), batch_size=1, accumulation_steps=1, epochs=2)
    trainer.how = replace(trainer.how, warmup_ratio=0.2)
    factors = []
    for trainer.progress.step in range(20):
        factors.append(trainer._factor())
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[4:] == pytest.approx([(20 - step) / 16 for step in range(4, 20)])


def test_adapters_train_and_the_models_own_weights_do_not(folder, tmp_path):
    reranker = ranker(folder, epochs=1)
    model = reranker.engine.model
    own = {name: p.detach().clone() for name, p in model.named_parameters()}
    told = reranker.fit(tiny_batch(), None, tmp_path)
    assert told["n_train"] == 4 and told["n_left_out"] == 2, "every third row has no target"
    now = {name.replace(".base_layer", ""): p for name, p in model.named_parameters()}
    assert all(torch.equal(now[name], value) for name, value in own.items())
    adapters = {name: p for name, p in now.items() if name not in own}
    assert all("lora_" in name and p.any() for name, p in adapters.items())
    reranker.save(tmp_path)
    assert {path.name for path in (tmp_path / "adapter").iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert not (tmp_path / FILE).exists()


def test_all_weights_train_without_adapters_and_come_back(tiny_qwen, tmp_path):
    batch = tiny_batch()
    reranker = ranker(tiny_qwen, lora=False, epochs=1, learning_rate=0.001)
    before = reranker.score(batch.without_targets())
    reranker.fit(batch, None, tmp_path)
    after = reranker.score(batch.without_targets())
    assert not torch.equal(before, after)
    reranker.save(tmp_path)
    other = ranker(tiny_qwen, lora=False)
    other.load(tmp_path)
    assert torch.equal(other.score(batch.without_targets()), after)


class Killed(BaseException):
    pass


def test_a_killed_training_goes_on_to_the_same_weights(folder, tmp_path, monkeypatch):
    rows, valid = rows_of(), rows_of(5, 4)
    whole, killed, other = (ranker(folder, train_batch_size=2) for _ in range(3))
    (tmp_path / "whole").mkdir()
    told = whole.fit(rows, valid, tmp_path / "whole")
    step = Trainer._step

    def dies(self, numbers):
        if self.progress.epoch == 1 and self.progress.step % 2:
            raise Killed
        return step(self, numbers)

    monkeypatch.setattr(Trainer, "_step", dies)
    with pytest.raises(Killed):
        killed.fit(rows, valid, tmp_path)
    monkeypatch.undo()
    steps = []
    monkeypatch.setattr(Trainer, "_step", lambda *a: steps.append(1) or step(*a))
    assert other.fit(rows, valid, tmp_path) == told
    assert len(steps) == told["steps"] - told["steps"] // 3, "the first epoch was not done again"
    assert_same(trained_weights(other), trained_weights(whole))
    steps.clear()
    again = ranker(folder, train_batch_size=2)
    assert again.fit(rows, valid, tmp_path) == told and not steps
    assert_same(trained_weights(again), trained_weights(whole))


def test_the_state_of_another_training_or_a_damaged_one_is_refused(folder, tmp_path):
    rows = rows_of(4)
    ranker(folder, epochs=1).fit(rows, None, tmp_path)
    for other, given in ((ranker(folder, epochs=2), rows), (ranker(folder, epochs=1), rows_of(5))):
        with pytest.raises(UserError, match="training.pt is the state of a training with other"):
            other.fit(given, None, tmp_path)
    assert ranker(folder, epochs=1, prompt_batch_size=3).fit(rows, None, tmp_path)["epoch"] == 1
    (tmp_path / FILE).write_bytes(b"PK and no more")
    with pytest.raises(UserError, match="training.pt, the state of .* is damaged; delete it, and"):
        ranker(folder, epochs=1).fit(rows, None, tmp_path)


def test_it_stops_when_the_valid_loss_gets_no_better_and_keeps_the_best(folder, tmp_path):
    reranker = ranker(folder, epochs=9)
    trainer = trainer_of(reranker, rows_of(6), stopping_step=2)
    losses, seen = iter([3.0, 2.0, 2.5, 2.1, 1.0]), []

    def valid_loss():
        seen.append(trained_weights(reranker))
        return next(losses)

    told = trainer.fit(valid_loss, tmp_path, "id")
    assert told["epoch"] == 4 and told["best_epoch"] == 2
    assert told["valid_loss"] == [3.0, 2.0, 2.5, 2.1] and len(told["train_loss"]) == 4
    assert_same(trained_weights(reranker), seen[1])


def test_the_valid_loss_is_that_of_the_target_by_the_scores(folder):
    reranker, rows = ranker(folder), rows_of(5, 4)
    scores = reranker.score(rows.without_targets())
    expected = []
    for row, score in zip(rows.candidates, scores, strict=True):
        place = len(row) - 1  # rows_of
        expected.append(F.cross_entropy(score[: len(row)], torch.tensor(place)))
    found = reranker._valid_loss(rows)
    assert found == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)


def test_rows_from_which_nothing_is_learnt_are_an_error(folder, tmp_path):
    rows = replace(rows_of(3), targets=[["i99"]] * 3)
    with pytest.raises(UserError, match="no row has two candidates and a target among them"):
        ranker(folder).fit(rows, None, tmp_path)


def test_layers_that_are_not_there_are_one_sentence(folder, tmp_path):
    with pytest.raises(UserError, match=r"lora_targets: \['nothing'\] cannot be adapted"):
        ranker(folder, lora_targets=["nothing"]).fit(rows_of(4), None, tmp_path)


def test_kept_adapters_that_are_damaged_or_gone_are_one_sentence(folder, tmp_path):
    reranker = ranker(folder, epochs=1)
    reranker.fit(rows_of(4), None, tmp_path)
    reranker.save(tmp_path)
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="the adapter in .*adapter cannot be read .*train the rera"):
        ranker(folder).load(tmp_path)
    kept = tmp_path / "language_model.json"
    kept.write_text(json.dumps({"kept": "weights"}))
    with pytest.raises(UserError, match="language_model.json is damaged .no folder|there is no fo"):
        ranker(folder).load(tmp_path)
    kept.unlink()
    with pytest.raises(UserError, match="holds no trained language model .no language_model.json"):
        ranker(folder).load(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["listwise", "pointwise"])
def test_a_dozen_prompts_are_learnt_by_heart_and_not_at_learning_rate_0(mode, folder, tmp_path):
    rows, losses = rows_of(12, 5), {}
    path = tmp_path / "short.txt"
    path.write_text("{history}\n{%s}" % ("candidates" if mode == "listwise" else "candidate"))
    short = {"prompt": str(path), "max_history": 2, "n_negatives": 1, "scoring": mode}
    for rate, epochs in ((0.01, 120), (0.0, 3)):
        reranker = ranker(folder, lora_rank=16, lora_dropout=0.0, **short)
        how = {"learning_rate": rate, "epochs": epochs, "batch_size": 12, "accumulation_steps": 1}
        trainer = trainer_of(reranker, rows, **how)
        same = [reranker.mode.examples(rows, row, 0) for row in range(12)]
        trainer.examples = lambda row, epoch, same=same: same[row]
        (tmp_path / str(rate)).mkdir()
        losses[rate] = trainer.fit(None, tmp_path / str(rate), "id")["train_loss"]
    assert losses[0.01][-1] < 0.05 < 0.3 < losses[0.01][0]
    assert losses[0.0] == pytest.approx([losses[0.01][0]] * 3, rel=1e-4), "as before any step"


# What needs no model.


def parameter(gradient):
    found = torch.nn.Parameter(torch.ones(2))
    found.grad = None if gradient is None else torch.tensor(gradient)
    return found


FINE = {"q.lora_A.default.weight": [0.0, 0.0], "q.lora_B.default.weight": [0.0, 1.0]}


@pytest.mark.parametrize(
    ("gradients", "sentence"),
    [
        ({**FINE, "q.lora_B.default.weight": [0.0, 0.0]}, "no gradient reaches q .1 of 1 modules"),
        ({**FINE, "k.lora_A.w": None, "k.lora_B.w": None}, "no gradient reaches k .1 of 2 modules"),
        ({**FINE, "q.lora_A.default.weight": [torch.nan, 0.0]}, "of q.lora_A.* is not finite"),
        ({**FINE, "q.lora_B.default.weight": [torch.inf, 0.0]}, "of q.lora_B.* is not finite"),
        ({"norm.weight": [0.0, 0.0]}, "no gradient reaches norm"),
    ],
)
def test_gradients_that_do_not_train_are_refused(gradients, sentence):
    check_gradients({name: parameter(value) for name, value in FINE.items()}, loss=2.0)
    with pytest.raises(UserError, match=sentence):
        check_gradients({name: parameter(value) for name, value in gradients.items()}, loss=2.0)


def test_where_nothing_is_left_to_learn_no_gradient_is_needed():
    check_gradients({"norm.weight": parameter([0.0, 0.0])}, loss=1e-9)


def test_gradients_are_looked_at_in_the_first_step_and_after_each_validation(
    folder, tmp_path, monkeypatch
):
    from recbole_ext.rerankers.llm import training

    looked = []
    monkeypatch.setattr(training, "check_gradients", lambda p, loss: looked.append(steps[-1]))
    reranker = ranker(folder, epochs=3, stopping_step=9)
    trainer = trainer_of(reranker, rows_of(6), batch_size=2, accumulation_steps=1)
    steps, step = [0], trainer._step
    trainer._step = lambda rows: (steps.append(steps[-1] + 1), step(rows))[1]
    trainer.fit(lambda: 1.0, tmp_path, "id")
    assert looked == [1, 4, 7] and steps[-1] == 9


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"scoring": "pointwize"},
            "scoring takes listwise or pointwise, not 'pointwize'; did",
        ),
        ({"engine": "vllm"}, "engine takes local or server, not 'vllm'"),
        ({"loss": "bpr"}, "loss takes candidates or lm, not 'bpr'"),
        ({"dtype": "float8"}, "dtype takes auto or float32 or bfloat16 or float16, not 'float8'"),
        ({"prompt_batch_size": 0}, "prompt_batch_size takes numbers from 1, not 0"),
        ({"weight_decay": -0.1}, "weight_decay takes numbers from 0, not -0.1"),
        ({"clip_grad_norm": 0.0}, "clip_grad_norm takes numbers above 0, not 0.0"),
        ({"lora_dropout": 1.0}, "lora_dropout takes 0 to below 1, not 1.0"),
        ({"load_in_4bit": True, "lora": False}, "load_in_4bit leaves adapters alone to train"),
        ({"prompt": "none.txt"}, "prompt: the template none.txt cannot be read"),
    ],
)
def test_settings_that_cannot_be_meant_are_one_sentence(given, sentence):
    check_settings(ranker(None).settings)
    with pytest.raises(UserError, match=sentence):
        ranker(None, **given)


def test_without_peft_the_extra_is_named(tiny_qwen, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"pip install 'recbole-ext\[lora\]', or set lora to False"):
        ranker(tiny_qwen).fit(rows_of(4), None, tmp_path)
