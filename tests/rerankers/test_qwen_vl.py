"""The reranker qwen_vl with a small random Qwen3-VL: what it is told, and what it makes of it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pandas as pd
import pytest
import torch
from rerankers.contracts import RerankerContract, TinyCorpus, tiny_batch

from recbole_ext.features.images import open_image
from recbole_ext.features.qwen_vision import PICTURE, Pixels
from recbole_ext.rerankers.build import build_reranker
from recbole_ext.rerankers.llm.labels import LETTERS
from recbole_ext.rerankers.vision.pixels import PixelCache
from recbole_ext.types import UserError

FEW = {"epochs": 1, "show_progress": False, "learning_rate": 0.05, "device": "cpu"}
SMALL = {"max_pixels": 128, "max_title_tokens": 14, "shuffle": False, **FEW}


class TestContract(RerankerContract):
    name = "qwen_vl"

    @pytest.fixture
    def given(self, vision_model, picture_folder):
        pytest.importorskip("peft", reason="needs the extra [lora]")
        shown = {"evidence": "raw_image", "images": str(picture_folder)}
        return {"model": vision_model("qwen_vl"), **SMALL, **shown, "shuffle": True}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A folder as ``recbole-ext summaries`` writes it: of the even items, and of i3 nothing."""
    folder = tmp_path_factory.mktemp("summaries")
    texts = {f"i{i}": f"fine {i} and so on and on" if i % 2 == 0 else None for i in range(12)}
    table = pd.DataFrame({"token": list(texts), "text": list(texts.values())})
    table.to_parquet(folder / "texts.parquet")
    return folder


@pytest.fixture
def build(vision_model, picture_folder, told):
    def make(evidence, **more):
        given = {"model": vision_model("qwen_vl"), "evidence": evidence, **SMALL, **more}
        if evidence == "raw_image":
            given = {"images": str(picture_folder), **given}
        elif evidence != "text_only":
            given = {"texts": str(told), **given}
        return build_reranker("qwen_vl", given, TinyCorpus(), seed=1)

    return make


@pytest.fixture
def rows():
    """Two users; of the first one's candidates i0 to i9 have pictures, but i3."""
    batch = tiny_batch().without_targets().rows([1, 2])
    candidates = [["i4", "i3", "i11", "i9"], ["i0", "i39"]]
    return replace(batch, candidates=candidates, scores=torch.zeros(2, 4))


PROMPT = (
    "<|im_start|>system\nYou recommend items. You see what a user had and the candidates for what "
    "comes next.<|im_end|>\n<|im_start|>user\nWhat the user had, the oldest first:\n{history}\n\n"
    "Candidates:\n{candidates}\n\nWhich candidate does the user take next? Answer with its letter "
    "alone.<|im_end|>\n<|im_start|>assistant\n"
)


@torch.no_grad()
def naive(reranker, history, lines, pictures):
    """Logits of the letters, by the model's own processor and its head over all tokens."""
    import transformers

    try:
        processor = transformers.AutoProcessor.from_pretrained(reranker.settings["model"])
    except ImportError as error:
        pytest.skip(f"the model's own processor needs torchvision: {error}")
    name = reranker.settings["model"]
    processor.image_processor = transformers.AutoImageProcessor.from_pretrained(name, backend="pil")
    processor.image_processor.size = {"shortest_edge": 64, "longest_edge": 128}
    model = transformers.AutoModelForImageTextToText.from_pretrained(name).eval()
    text = PROMPT.format(
        history="\n".join(f"- {title}" for title in history),
        candidates="\n".join(f"{a}. {line}" for a, line in zip(LETTERS, lines, strict=False)),
    )
    more = {"images": [open_image(path) for path in pictures]} if pictures else {}
    logits = model(**processor(text=[text], **more, return_tensors="pt")).logits[0, -1]
    letters = processor.tokenizer.convert_tokens_to_ids(list(LETTERS[: len(lines)]))
    return logits[letters].tolist()


def titles(batch, items):
    return [batch.text_of(item)[:14] for item in items]  # a token is a byte here


def test_a_picture_stands_behind_its_title_and_is_seen(build, rows, picture_folder, caplog):
    reranker = build("raw_image")
    scores = reranker.score(rows)
    for row, shown in enumerate([["i4", "i9"], ["i0"]]):
        names = rows.candidates[row]
        lines = [
            f"{title} {PICTURE}" if item in shown else title
            for item, title in zip(names, titles(rows, names), strict=True)
        ]
        files = [picture_folder / f"{item}.png" for item in names if item in shown]
        wanted = naive(reranker, titles(rows, rows.histories[row]), lines, files)
        assert scores[row, : len(names)].tolist() == pytest.approx(wanted, abs=1e-4)
    assert reranker.evidence.problems.keys() == {"i3", "i11", "i39"}
    assert "no picture that can be read" in reranker.evidence.problems["i3"]
    assert "3 of 6 candidates are without a picture, and have their title alone" in caplog.text
    assert (scores - build("text_only").score(rows)).abs()[0].max() > 1e-3


def test_a_prompt_of_text_alone_is_the_models_own(build, rows):
    reranker = build("text_only")
    scores = reranker.score(rows)
    for row, items in enumerate(rows.candidates):
        wanted = naive(reranker, titles(rows, rows.histories[row]), titles(rows, items), [])
        assert scores[row, : len(items)].tolist() == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        ("caption", "fine {} and so on and on"),
        ("semantic_summary", "fine {} and so on and on"),
        ("semantic_summary_small", "fine {}"),  # six tokens of a byte each
    ],
)
def test_what_was_written_stands_behind_the_title(evidence, words, build, rows, caplog):
    reranker = build(evidence, small_text_tokens=6)
    scores = reranker.score(rows)
    history = titles(rows, rows.histories[0])
    first, second, third, fourth = titles(rows, rows.candidates[0])
    lines = [f"{first}: {words.format(4)}", second, third, fourth]
    wanted = naive(reranker, history, lines, [])
    assert scores[0].tolist() == pytest.approx(wanted, abs=1e-4)
    assert reranker.evidence.problems.keys() == {"i3", "i11", "i9", "i39"}
    assert "4 of 6 candidates are without a text of recbole-ext" in caplog.text


def test_pictures_count_for_the_length_and_no_candidate_is_left_out(build, rows):
    def asked(**more):
        reranker = build("raw_image", min_title_tokens=2, **more)
        prompt = reranker.mode._prompt(rows, 0, range(4))
        return prompt, reranker.engine.reader.count(prompt)

    whole, n = asked()
    # 28 x 20 pixels become 8 x 8, a token, and 48 x 20 become 16 x 8: 128 pixels at most
    assert [one.n_tokens for one in whole.pictures] == [1, 2]
    begin, picture, end = (f"<|{name}|>" for name in ("vision_start", "image_pad", "vision_end"))
    text = "".join(whole.user.split(begin + picture + end)) + whole.system
    marks = 5 + len("systemuserassistant") + 5  # of the chat: five marks, words, ends of lines
    assert n == len(text) + marks + (1 + 1 + 1) + (1 + 2 + 1)
    short, n_short = asked(max_length=n - 1)
    assert n_short < n and short.pictures == whole.pictures and "A. " in short.user
    assert all(f"\n{a}. " in short.user for a in "ABCD")
    with pytest.raises(UserError, match="prompt with 4 candidates takes .* max_length is 250"):
        asked(max_length=250)


@pytest.mark.gpu
def test_scores_on_a_gpu_are_those_on_the_cpu(build, rows):
    on_gpu = build("raw_image", device="cuda").score(rows)
    torch.testing.assert_close(on_gpu, build("raw_image").score(rows), rtol=1e-3, atol=1e-3)


class FakeReader:
    def pixels(self, picture):
        return Pixels(torch.zeros(100), torch.ones(3), 1)


def test_a_picture_is_read_once_while_there_is_room(picture_folder):
    files = [picture_folder / f"i{i}.png" for i in (0, 1, 1, 0, 2, 0, 1)]
    for room, n_read in ((3 * 400, 3), (2 * 400, 4), (1, 6)):  # a picture takes 400 bytes
        cache = PixelCache(FakeReader(), room)
        for path in files:
            cache.pixels(cache.picture(path))
        assert cache.n_read == n_read


def test_kept_scores_are_of_the_evidence_they_were_made_with(build, rows, told, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    table = pd.read_parquet(told / "texts.parquet")
    table["text"] = table["text"].str.upper()
    table.to_parquet(other / "texts.parquet")
    more = {"cache_dir": str(tmp_path / "scores")}
    first, again = (build("caption", **more).score(rows) for _ in range(2))
    assert torch.equal(first, again)
    changed = build("caption", texts=str(other), **more).score(rows)
    assert (changed - first).abs()[0].max() > 1e-3


def test_all_weights_but_the_towers_are_trained_and_kept(build, tmp_path):
    batch = tiny_batch()
    reranker = build("text_only", lora=False, learning_rate=0.01)
    tower = reranker.engine.model.base_model.visual
    before = [p.clone() for p in tower.parameters()]
    told = reranker.fit(batch, None, tmp_path)
    assert told["n_train"] == 4
    assert all(torch.equal(a, b) for a, b in zip(before, tower.parameters(), strict=True))
    reranker.save(tmp_path)
    assert json.loads((tmp_path / "language_model.json").read_text()) == {"kept": "weights"}
    other = build("text_only", lora=False)
    other.load(tmp_path)
    seen = batch.without_targets()
    torch.testing.assert_close(other.score(seen), reranker.score(seen))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"evidence": "raw_images"}, "evidence takes text_only, .* did you mean 'raw_image'"),
        ({"evidence": "raw_image"}, "raw_image shows pictures; set images to their folder or CSV"),
        ({"evidence": "caption"}, "set texts to the folder that recbole-ext captions wrote"),
        (
            {"evidence": "semantic_summary", "texts": "nowhere"},
            "there is no file nowhere; write it: recbole-ext summaries",
        ),
        (
            {"evidence": "caption", "texts": "FOREIGN"},
            "texts: .* has 'B0001', and they are as 'i0'",
        ),
        ({"evidence": "caption", "texts": "DAMAGED"}, "cannot read .*texts.parquet"),
        ({"model": "blip2"}, "is a model of type blip-2, and qwen_vl is for Qwen-VL"),
        ({"model": "t5"}, "is a model of type t5, which reads no pictures"),
        ({"load_in_4bit": True}, "load_in_4bit needs a CUDA device, and this is cpu"),
        ({"max_length": 9999}, "max_length is 9999, and model '.*' reads 4096 tokens"),
        ({"texts": "a"}, "texts is for evidence caption or .*, and would do nothing for text_only"),
        ({"evidence": "caption", "images": "a", "texts": "b"}, "images is for evidence raw_image"),
        ({"max_pixels": 0}, "max_pixels takes numbers from 1, not 0"),
    ],
)
def test_what_cannot_be_is_one_sentence(given, sentence, vision_model, tmp_path, rows):
    given = dict(given)
    if given.get("texts") in ("FOREIGN", "DAMAGED"):
        path = tmp_path / "texts.parquet"
        pd.DataFrame({"token": ["B0001"], "text": ["a"]}).to_parquet(path)
        if given["texts"] == "DAMAGED":
            path.write_bytes(path.read_bytes()[:50])
        given["texts"] = str(tmp_path)
    given = {"model": "qwen_vl", "device": "cpu", "show_progress": False, **given}
    given["model"] = vision_model(given["model"])
    with pytest.raises(UserError, match=sentence):
        build_reranker("qwen_vl", given, TinyCorpus()).score(rows)


def test_without_transformers_the_extra_is_named(monkeypatch, rows):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"needs transformers .*'recbole-ext\[llm\]'"):
        build_reranker("qwen_vl", {}, TinyCorpus()).score(rows)
