"""Writers: behind an endpoint, and a language model of transformers made in the test."""

from __future__ import annotations

import logging
import re
import shutil
import sys
import types

import pytest
import torch

from recbole_ext.features.endpoint import Endpoint
from recbole_ext.features.llm import EndpointWriter, LocalWriter, Written
from recbole_ext.features.pace import Pace
from recbole_ext.features.writing import write_texts
from recbole_ext.types import UserError
from tests.features.openai_server import KEY, MESSAGE_TOO_LONG, answer_of, failure

PROMPTS = {f"u{i}": f"prompt {i}" for i in range(6)}
TOO_LONG = (400, {}, failure(MESSAGE_TOO_LONG, "context_length_exceeded"))


@pytest.fixture
def writer(server, clock) -> EndpointWriter:
    pace = Pace(clock=clock, sleep=clock.sleep)
    return EndpointWriter(Endpoint(pace=pace, concurrency=1, max_retries=2), "big")


def chat(content, reason="stop"):
    message = {"message": {"role": "assistant", "content": content}, "finish_reason": reason}
    return 200, {}, {"choices": [message]}


def test_the_endpoint_answers_each_prompt(server, writer, tmp_path):
    texts = write_texts(tmp_path, PROMPTS, writer, show_progress=False)
    assert texts.texts == {token: answer_of(prompt) for token, prompt in PROMPTS.items()}
    path, body = server.asked[0]
    assert path == "chat/completions" and body == {
        "model": "big",
        "messages": [{"role": "user", "content": "prompt 0"}],
        "max_tokens": 256,
        "temperature": 0,
    }
    server.asked.clear()
    write_texts(tmp_path, {**PROMPTS, "u9": "new"}, writer, show_progress=False)
    assert server.prompts() == ["new"]
    other = EndpointWriter(writer.endpoint, "big", {"max_completion_tokens": 9})
    server.asked.clear()
    write_texts(tmp_path, PROMPTS, other, show_progress=False)
    assert len(server.asked) == 6 and server.asked[0][1]["max_completion_tokens"] == 9
    assert "max_tokens" not in server.asked[0][1]


def test_what_fails_is_of_its_prompt_and_asked_for_again(server, writer, tmp_path):
    bad = (500, {}, failure("oh"))
    server.next = [TOO_LONG, None, bad, bad, bad, chat(" \n"), chat("half", "length")]
    server.next += [chat(None, "content_filter")]
    texts = write_texts(tmp_path, PROMPTS, writer, show_progress=False)
    assert {token for token, text in texts.texts.items() if text is None} == {
        "u0",
        "u2",
        "u3",
        "u5",
    }
    assert texts.texts["u1"] == answer_of("prompt 1") and texts.texts["u4"] == "half"
    server.asked.clear()
    texts = write_texts(tmp_path, PROMPTS, writer, show_progress=False)
    assert server.prompts() == ["prompt 0", "prompt 2", "prompt 3", "prompt 5"]
    assert texts.texts["u2"] == answer_of("prompt 2")


def test_each_problem_says_what_it_is(server, writer):
    bad = (503, {}, "busy")
    server.next = [TOO_LONG, bad, bad, bad, chat(""), chat("half", "length"), chat("all")]
    found = writer.write(["a", "b", "c", "d", "e"])
    words = ["maximum context length", "503 .*: busy, 3 times", "the model wrote nothing"]
    for one, word in zip(found, words, strict=False):
        assert one.text is None and re.search(word, one.problem)
    assert found[3:] == [Written("half", "cut off after 256 tokens"), Written("all")]


def test_a_server_that_fails_for_all_ends_the_call(server, writer, tmp_path):
    server.next = [(500, {}, failure("down"))] * 18
    with pytest.raises(UserError, match="all of 6 prompts failed, the first so: .* down, 3 times"):
        write_texts(tmp_path, PROMPTS, writer, show_progress=False)
    assert not (tmp_path / "texts.parquet").exists()


@pytest.mark.parametrize("answer", [{"choices": []}, {"data": []}, {"choices": ["x"]}])
def test_an_answer_without_a_message_is_refused(answer, server, writer):
    server.next = [(200, {}, answer)]
    with pytest.raises(UserError, match="model 'big' has no message; is it a model of chat"):
        writer.write(["a"])


def test_a_key_that_is_refused_ends_the_call(server, clock, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "another-key")
    writer = EndpointWriter(Endpoint(pace=Pace(clock=clock, sleep=clock.sleep)), "big")
    with pytest.raises(UserError, match=r"401 .*Bearer \*\*\*; check OPENAI_API_KEY"):
        writer.write(list(PROMPTS.values()))


def test_the_key_is_in_no_file_and_no_log(server, writer, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    server.next = [(400, {}, failure(f"bad, {KEY}")), (500, {}, failure(KEY))]
    write_texts(tmp_path, PROMPTS, writer, show_progress=False)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 3 and "bad, ***" in caplog.text and KEY not in caplog.text
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_both_what_is_sent_and_what_is_written_count_for_the_pace(server, clock):
    pace = Pace(tokens_per_minute=60, clock=clock, sleep=clock.sleep)  # a second a token
    endpoint = Endpoint(pace=pace, concurrency=1)
    EndpointWriter(endpoint, "big", {"max_tokens": 10}).write(["a" * 8, "b"])
    assert clock.slept == pytest.approx([12])


# A language model of transformers: first a stand-in for the package, which need not be installed.


class FakeTokenizer:
    """A number for each word; 0 is the padding, 1 ends a text."""

    chat_template, pad_token_id = None, 0

    def __call__(self, text, **_):
        return {"input_ids": [int(word) for word in text.split()]}

    def batch_decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return [" ".join(str(i) for i in row if i > 1) for row in ids.tolist()]


class FakeModel(torch.nn.Module):
    """Counts on from the last token to 9 and ends; after the end it pads, as transformers does."""

    def __init__(self):
        super().__init__()
        self.config = types.SimpleNamespace(max_position_embeddings=20)
        self.generation_config = types.SimpleNamespace(eos_token_id=[1, 99])
        self.seen = []

    def generate(self, input_ids, attention_mask, max_new_tokens, pad_token_id, **more):
        assert more["do_sample"] is False and pad_token_id == 0
        assert ((input_ids > 0) == attention_mask.bool()).all()
        self.seen.append(input_ids.tolist())
        steps = torch.arange(1, max_new_tokens + 1, device=input_ids.device)
        new = input_ids[:, -1:] + steps  # [B, new]
        new = torch.where(new == 10, 1, torch.where(new > 10, 0, new))
        return torch.cat([input_ids, new], 1)


@pytest.fixture
def fake_model(monkeypatch):
    model = FakeModel()
    names = {"AutoTokenizer": FakeTokenizer(), "AutoModelForCausalLM": model}
    module = types.ModuleType("transformers")
    for name, found in names.items():
        loader = types.SimpleNamespace(from_pretrained=lambda _, found=found, **more: found)
        setattr(module, name, loader)
    monkeypatch.setitem(sys.modules, "transformers", module)
    return model


def test_prompts_are_padded_on_the_left_and_cut_texts_are_told_from_ended_ones(fake_model):
    writer = LocalWriter("a/name", max_new_tokens=4, batch_size=2, device="cpu")
    found = writer.write(["5 7", "3", "2 " * 17, "9", "4"])
    assert fake_model.seen == [[[5, 7], [0, 3]], [[9], [4]]]
    assert found[0] == Written("8 9")
    assert found[1] == Written("4 5 6 7", "cut off after 4 tokens")
    assert found[2].text is None and "has 17 tokens, and the model takes 20" in found[2].problem
    assert found[3] == Written(None, "the model wrote nothing")
    assert found[4] == Written("5 6 7 8", "cut off after 4 tokens")
    assert writer.source.settings == {"max_new_tokens": 4, "temperature": 0.0}


@pytest.mark.gpu
def test_it_runs_on_a_gpu(fake_model):
    found = LocalWriter("a/name", max_new_tokens=4).write(["5 7", "3"])
    assert [one.text for one in found] == ["8 9", "4 5 6 7"]


CHAT = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def lm(tmp_path_factory) -> str:
    """A folder with a GPT-2 of one layer and a tokenizer of words, as from_pretrained reads it."""
    transformers = pytest.importorskip("transformers", reason="needs the extra [llm]")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<eos>", "<pad>", "<unk>", "<user>", "<assistant>"]
    words += [f"word{i}" for i in range(20)] + list("abcdefghij")
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )
    torch.manual_seed(4)
    config = transformers.GPT2Config(
        vocab_size=len(words),
        n_positions=32,
        n_embd=16,
        n_layer=1,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=1.0,
        tie_word_embeddings=False,  # else a random model repeats what it read last
    )
    folder = tmp_path_factory.mktemp("lm")
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return str(folder)


def greedy(lm: str, prompt: str, n: int) -> tuple[list[int], bool]:
    """Return the likeliest tokens one at a time, without padding or cache; whether the end came."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(lm), AutoModelForCausalLM.from_pretrained(lm)
    ids = tokenizer(prompt)["input_ids"]
    found: list[int] = []
    while len(found) < n:
        logits = model(torch.tensor([ids + found])).logits[0, -1]
        found.append(int(logits.argmax()))
        if found[-1] == 0:
            return found, True
    return found, False


LM_PROMPTS = ["a b c", "word1 word2 word3 word4 word5 word6 word7", "j", "c c c c", "word9 a"]


def test_a_batch_padded_on_the_left_is_each_prompt_by_itself(lm):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(lm)
    found = LocalWriter(lm, max_new_tokens=6, batch_size=3, device="cpu").write(LM_PROMPTS)
    alone = [greedy(lm, prompt, 6) for prompt in LM_PROMPTS]
    assert {has_ended for _, has_ended in alone} == {True, False}
    for (ids, has_ended), one in zip(alone, found, strict=True):
        text = tokenizer.decode(ids, skip_special_tokens=True).strip()
        assert one.text == (text or None)
        if text:
            assert one.problem == (None if has_ended else "cut off after 6 tokens")
    assert len({one.text for one in found}) > 1


def test_a_prompt_that_is_too_long_is_a_problem_and_the_others_are_written(lm):
    writer = LocalWriter(lm, max_new_tokens=6, device="cpu")
    fits = ["word1", "c " * 26]
    found = writer.write([fits[0], "b " * 27, fits[1]])
    assert found[1].text is None and found[1].problem == (
        "the prompt has 27 tokens, and the model takes 32 with max_new_tokens 6; shorten the prompt"
    )
    assert [found[0], found[2]] == writer.write(fits)
    assert any(one.text for one in found)


def test_a_chat_template_is_used_where_there_is_one(lm, tmp_path):
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoModelForCausalLM, AutoTokenizer

    begin = TemplateProcessing(single="<unk> $A", special_tokens=[("<unk>", 2)])
    tokenizer = AutoTokenizer.from_pretrained(lm)
    tokenizer.backend_tokenizer.post_processor = begin  # as Llama's, which begins each text
    AutoModelForCausalLM.from_pretrained(lm).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    asked = LocalWriter(str(tmp_path), device="cpu")._as_asked("a b")
    assert tokenizer.decode(asked) == "<unk> a b"
    tokenizer.chat_template = CHAT  # a template begins the chat itself
    tokenizer.save_pretrained(tmp_path)
    asked = LocalWriter(str(tmp_path), device="cpu")._as_asked("a b")
    assert tokenizer.decode(asked) == "<user> a b <assistant>"


def test_drawing_is_repeatable_and_another_source(lm):
    hot = {"max_new_tokens": 8, "temperature": 5.0, "device": "cpu"}
    first, again, other = (LocalWriter(lm, seed=seed, **hot) for seed in (1, 1, 2))
    assert first.write(LM_PROMPTS) == again.write(LM_PROMPTS) != other.write(LM_PROMPTS)
    plain = LocalWriter(lm, max_new_tokens=8, device="cpu")
    digests = {writer.source.digest() for writer in (first, again, other, plain)}
    assert len(digests) == 3


def test_the_source_is_the_weights_and_the_template_not_their_place(lm, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = LocalWriter(lm, device="cpu").source
    shutil.copytree(lm, tmp_path, dirs_exist_ok=True)
    copy = LocalWriter(str(tmp_path), device="cpu").source
    assert copy.digest() == source.digest() and copy.encoder != source.encoder
    tokenizer = AutoTokenizer.from_pretrained(lm)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(tmp_path)
    digests = {source.digest(), LocalWriter(str(tmp_path), device="cpu").source.digest()}
    model = AutoModelForCausalLM.from_pretrained(lm)
    model.lm_head.weight.data[3, 3] += 1
    model.save_pretrained(tmp_path)
    digests.add(LocalWriter(str(tmp_path), device="cpu").source.digest())
    assert len(digests) == 3


def test_a_model_that_is_not_there_is_one_sentence(tmp_path):
    pytest.importorskip("transformers", reason="needs the extra [llm]")
    with pytest.raises(UserError, match="cannot load a language model from .*; give the folder of"):
        LocalWriter(str(tmp_path / "none"))


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'recbole-ext\[llm\]'"):
        LocalWriter("anything")
