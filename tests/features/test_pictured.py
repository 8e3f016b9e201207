"""Captions and summaries: what a model sees, what is kept, what failed and is tried again."""

from __future__ import annotations

import re
import shutil
import sys

import pandas as pd
import pytest
import torch

from recbole_ext.cli import main
from recbole_ext.features.images import open_image, read_images
from recbole_ext.features.llm import Written
from recbole_ext.features.manifest import Source
from recbole_ext.features.pictured import PictureWriter, shown, write_about_pictures
from recbole_ext.features.qwen_vision import PAD, PICTURE
from recbole_ext.features.texts import read_texts
from recbole_ext.features.vision_language import load_vision_language
from recbole_ext.types import UserError


class Fake:
    """Says how a file is called; fails at a call, as a kill would."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.source = Source("fake", "1")
        self.asked: list[str] = []
        self.calls, self.fails_at = 0, fails_at

    def write(self, prompts):
        self.calls += 1
        if self.calls == self.fails_at:
            raise KeyboardInterrupt
        self.asked += [one.picture.stem for one in prompts]
        return [
            Written(one.picture.stem) if one.image_hash else Written(None, "gone")
            for one in prompts
        ]


def table(folder) -> pd.DataFrame:
    return pd.read_parquet(folder / "texts.parquet").set_index("token")


def write(folder, pictures, writer, prompt="what?"):
    asked = shown(dict.fromkeys(pictures, prompt), pictures)
    return write_about_pictures(folder, asked, writer, batch_size=3, show_progress=False).texts


@pytest.fixture
def copied(picture_folder, tmp_path):
    return shutil.copytree(picture_folder, tmp_path / "pictures")


def test_what_is_new_is_a_picture_or_a_prompt_by_its_bytes(copied, tmp_path):
    pictures, folder = read_images(copied), tmp_path / "texts"
    write(folder, pictures, Fake())
    again = Fake()
    write(folder, pictures, again)
    assert again.asked == []
    (copied / "i1.png").write_bytes((copied / "i2.png").read_bytes() + b" ")  # another picture
    shutil.copy(copied / "i4.png", copied / "i5.png")  # one that was seen already
    texts = write(folder, pictures, again)
    assert again.asked == ["i1"] and texts["i5"] == "i4"
    write(folder, pictures, again, "another prompt")
    assert len(again.asked) == 1 + 9  # i4 and i5 are one
    rows = table(folder)
    assert rows["image_hash"].nunique() == 9 and rows.loc["i4", "image_hash"]
    assert rows.loc["i4", "image_hash"] == rows.loc["i5", "image_hash"]


def test_a_call_that_was_killed_goes_on(picture_folder, tmp_path):
    pictures = read_images(picture_folder)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a", pictures, Fake(fails_at=3))
    again = Fake()
    texts = write(tmp_path / "a", pictures, again)
    assert again.asked == ["i6", "i7", "i8", "i9"]  # two batches of three were kept
    assert texts == write(tmp_path / "b", pictures, Fake())
    drop = ["date"]
    pd.testing.assert_frame_equal(
        table(tmp_path / "a").drop(columns=drop), table(tmp_path / "b").drop(columns=drop)
    )


def test_a_missing_picture_is_recorded_and_tried_again(copied, tmp_path, caplog):
    pictures, folder = read_images(copied), tmp_path / "texts"
    kept = (copied / "i2.png").read_bytes()
    (copied / "i2.png").unlink()
    assert write(folder, pictures, Fake())["i2"] is None
    assert "1 of 10 items have no picture that can be read" in caplog.text
    assert table(folder).loc["i2", "problem"] == "gone"
    (copied / "i2.png").write_bytes(kept)
    again = Fake()
    assert write(folder, pictures, again)["i2"] == "i2" and again.asked == ["i2"]


def test_a_damaged_cache_is_named(picture_folder, tmp_path):
    pictures = read_images(picture_folder)
    write(tmp_path, pictures, Fake())
    (tmp_path / "written.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(UserError, match="written.parquet is damaged .* move it away"):
        write(tmp_path, pictures, Fake())


@pytest.fixture(scope="module")
def qwen_vl(vision_model):
    return load_vision_language(vision_model("qwen_vl"), device="cpu")


def test_pictures_in_a_text_are_as_the_models_own_processor_has_them(qwen_vl, picture_folder):
    """Its processor is for torchvision; what it makes of texts and pictures must be ours."""
    transformers = pytest.importorskip("transformers")
    try:
        theirs = transformers.AutoProcessor.from_pretrained(qwen_vl.name)
    except ImportError as error:
        pytest.skip(f"the model's own processor needs torchvision: {error}")
    theirs.tokenizer.padding_side = "left"
    pictures = [open_image(picture_folder / f"i{i}.png") for i in (0, 9)]
    texts = [f"a{PICTURE}b", f"longer {PICTURE}"]
    ours = qwen_vl.reader.inputs(texts, pictures)
    wanted = theirs(text=texts, images=pictures, padding=True, return_tensors="pt")
    assert ours.keys() == wanted.keys()
    for key in ("input_ids", "attention_mask", "mm_token_type_ids", "image_grid_thw"):
        assert torch.equal(ours[key].long(), wanted[key].long())
    assert (ours["input_ids"][0] == 0).any() and PAD in texts[0]  # one of them is padded
    gap = (ours["pixel_values"] - wanted["pixel_values"]).abs()  # another resizing
    assert gap.max() < 0.3 and gap.mean() < 0.01


@torch.no_grad()
def greedy(found, text, picture, n):
    """The likeliest token, one at a time, with the whole text each time."""
    given = found.reader.inputs([text], [picture])
    ids, new = given.pop("input_ids"), []
    given.pop("attention_mask"), given.pop("mm_token_type_ids", None)
    image = getattr(found.reader, "image_token_id", None)
    for _ in range(n):
        more = {} if image is None else {"mm_token_type_ids": (ids == image).int()}
        mask = torch.ones_like(ids)
        logits = found.model(input_ids=ids, attention_mask=mask, **given, **more).logits[0, -1]
        new.append(int(logits.argmax()))
        ids = torch.cat([ids, logits.argmax()[None, None]], 1)
    return found.reader.tokenizer.decode(new, skip_special_tokens=True).strip()


@pytest.mark.parametrize("name", ["qwen_vl", "blip2"])
def test_a_text_is_the_likeliest_of_each_picture_by_itself(name, vision_model, picture_folder):
    found = load_vision_language(vision_model(name), device="cpu")
    pictures = {f"i{i}": (picture_folder / f"i{i}.png",) for i in (0, 3, 9)}
    pictures["i99"] = None
    asked = shown(dict.fromkeys(pictures, "look"), pictures)
    texts = PictureWriter(found, 3).write(list(asked.values()))
    for i in (0, 2):
        picture = open_image(picture_folder / f"i{(0, 3, 9)[i]}.png")
        assert texts[i].text == greedy(found, found.reader.asked("look"), picture, 3)
    assert texts[0].text != texts[2].text  # the picture is seen
    assert texts[1].text is None and "no picture that can be read" in texts[1].problem
    assert texts[3] == Written(None, "there is no picture of it")


@pytest.mark.parametrize(("name", "most"), [("blip2", 128), ("qwen_vl", 4096)])
def test_a_prompt_longer_than_the_model_reads_is_a_problem_of_its_own(
    name, most, vision_model, picture_folder
):
    writer = PictureWriter(load_vision_language(vision_model(name), device="cpu"), 3)
    pictures = read_images(picture_folder)
    asked = [*shown({"i0": "a" * most, "i4": "b"}, pictures).values()]
    long, short = writer.write(asked)
    said = (
        rf"the prompt has (\d+) tokens, and the model takes {most} with max_new_tokens 3; shorten"
    )
    assert int(re.match(said, long.problem)[1]) > most  # a byte is a token, and there is a picture
    assert long.text is None and short == writer.write(asked[1:])[0] and short.text


def run(capsys, *arguments) -> tuple[int, str]:
    code = main([str(one) for one in arguments])
    out, err = capsys.readouterr()
    return code, out + err.replace("\n", " ")


def test_the_commands_write_texts_for_the_pictures_there_are(
    vision_model, picture_folder, tiny_data_path, tmp_path, capsys
):
    place = ("--dataset=tiny", f"--features_dir={tmp_path}", f"--images={picture_folder}")
    model = ("--device=cpu", "--max_new_tokens=3")
    data = f"--data_path={tiny_data_path}"
    code, said = run(
        capsys, "captions", *place, *model, data, f"--model={vision_model('blip2')}", "--items=5"
    )
    assert code == 0 and "tiny/captions/texts.parquet: 4 of 5 texts" in said
    qwen = (*place, *model, data, f"--model={vision_model('qwen_vl')}", "--max_pixels=256")
    code, said = run(capsys, "summaries", *qwen, "--items=12")
    assert code == 0 and "tiny/summaries/texts.parquet: 9 of 12 texts" in said
    rows = table(tmp_path / "tiny" / "summaries")
    assert rows.loc["i11", "problem"] == "there is no picture of it"
    assert read_texts(tmp_path / "tiny" / "captions" / "texts.parquet").keys() == {
        f"i{i}" for i in range(5)
    }


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--model=nowhere/here"], "cannot load a model that reads pictures from 'nowhere/here'"),
        (["--model=qwen3-vl-2"], "did you mean 'qwen3-vl-2b'"),
        (["--model=MODEL/t5"], "is a model of type t5, which reads no pictures; name one that"),
        (["--model=MODEL/blip2", "--max_pixels=9"], "max_pixels is for Qwen-VL, and '.*blip2'"),
        (["--model=MODEL/qwen_vl", "--max_pixels=9"], "max_pixels 9 is less than a token, 8 x 8"),
        (["--model=m", "--dtype=float8"], "--dtype takes auto or float32 or .*, not 'float8'"),
        (["--model=m", "--batch_size=0"], "--batch_size takes a number from 1"),
        (["--model="], "--model is empty"),
        (["--model=m", "--images=nowhere"], "there is no folder or file nowhere"),
        ([], "needs --model="),
    ],
)
def test_what_cannot_be_is_one_sentence(
    options, sentence, vision_model, picture_folder, tmp_path, capsys, monkeypatch
):
    given = []
    for one in options:
        key, _, value = one.partition("=MODEL/")
        given.append(f"{key}={vision_model(value)}" if value else one)
    if not any(one.startswith("--images") for one in options):
        given.append(f"--images={picture_folder}")
    if any("/" in one or "qwen3" in one for one in options):
        pytest.importorskip("transformers", reason="needs the extra [llm]")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else it waits
    code, said = run(capsys, "captions", "--dataset=ml-100k", f"--features_dir={tmp_path}", *given)
    assert code == 2 and re.search(sentence, said), said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["captions", "summaries"])
def test_each_command_says_what_there_is_to_say(command, capsys):
    code, said = run(capsys, command, "--help")
    assert code == 0 and f"usage: recbole-ext {command} --key=value" in said
    for option in ("--model", "--images", "--max_pixels", "--dtype", "--max_new_tokens"):
        assert option in said
    assert f"(default {command})" in said  # the name of the texts


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"needs transformers .*'recbole-ext\[llm\]'"):
        load_vision_language("qwen3-vl-2b")
