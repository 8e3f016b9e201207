"""Which weights are loaded, and what is refused; by a stand-in for open_clip."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
import torch

from recbole_ext.features.open_clip_weights import load_tower
from recbole_ext.types import UserError


class FakeOpenClip(types.ModuleType):
    """What the loading asks open_clip for, and what it asked."""

    __version__ = "9"

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__("open_clip")
        self.asked, self.error = [], error
        self.transform = types.SimpleNamespace(
            PreprocessCfg=lambda **settings: settings,
            image_transform_v2=lambda settings, is_train: (settings, is_train),
        )

    def list_models(self):
        return ["ViT-A", "ViT-B"]

    def list_pretrained_tags_by_model(self, arch):
        return [f"tag{i}" for i in range(10)] if arch == "ViT-A" else []

    def get_model_config(self, arch):
        return {"embed_dim": 2, "vision_cfg": {"image_size": (4, 4)}, "text_cfg": {"width": 9}}

    def create_model(self, *names, **more):
        self.asked.append((names, more))
        if self.error:
            raise self.error
        visual = torch.nn.Linear(2, 2)
        visual.preprocess_cfg = {"size": (4, 4)}
        return types.SimpleNamespace(visual=visual)


@pytest.mark.parametrize(
    ("arch", "pretrained", "weights", "name"),
    [
        ("ViT-A", "tag3", "tag3", "open_clip/ViT-A/tag3"),
        ("ViT-A", "random", None, "open_clip/ViT-A/random"),
        ("ViT-B", __file__, __file__, f"open_clip/ViT-B/{Path(__file__).name}"),
        ("local-dir:a/b", None, None, "open_clip/local-dir:a/b"),
    ],
)
def test_weights_are_those_that_were_named(arch, pretrained, weights, name, monkeypatch):
    fake = FakeOpenClip()
    monkeypatch.setitem(sys.modules, "open_clip", fake)
    tower = load_tower(arch, pretrained)
    (((asked_arch, asked_weights), more),) = fake.asked
    assert (asked_arch, asked_weights) == (arch, weights) and more["pretrained_text"] is False
    assert more["require_pretrained"] is (pretrained != "random")  # never random unless asked for
    assert tower.name == name and tower.transform == ({"size": (4, 4)}, False)
    assert tower.model == {"embed_dim": 2, "vision_cfg": {"image_size": [4, 4]}}
    assert tower.preprocess == {"size": [4, 4]}  # as JSON gives it back
    assert len(tower.notes) == (2 if pretrained == "random" else 1)


@pytest.mark.parametrize(
    ("arch", "pretrained", "sentence"),
    [
        ("Vit-A", "tag1", "open_clip 9 has no architecture 'Vit-A'; did you mean 'ViT-A'"),
        ("ViT-A", None, "set pretrained: .* are tag0, .*, tag7 and 2 more; else a file"),
        (
            "ViT-A",
            "tag11",
            "pretrained=tag11 is no tag of 'ViT-A' and no file; did you mean 'tag1'",
        ),
        ("ViT-B", "rendom", "did you mean 'random'. .'ViT-B' has no tags"),
        ("hf-hub:x/y", "tag1", "'hf-hub:x/y' brings its weights; leave out pretrained=tag1"),
    ],
)
def test_names_that_are_none_are_refused(arch, pretrained, sentence, monkeypatch):
    fake = FakeOpenClip()
    monkeypatch.setitem(sys.modules, "open_clip", fake)
    with pytest.raises(UserError, match=sentence):
        load_tower(arch, pretrained)
    assert not fake.asked


def test_what_loading_says_is_one_sentence(monkeypatch):
    fake = FakeOpenClip(RuntimeError("no network\n" + 100 * "and more "))
    monkeypatch.setitem(sys.modules, "open_clip", fake)
    with pytest.raises(UserError, match="cannot load architecture 'ViT-A' with .*no netw") as said:
        load_tower("ViT-A", "tag1")
    assert "\n" not in str(said.value) and len(str(said.value)) < 500


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UserError, match=re.escape("pip install 'recbole-ext[image]'")):
        load_tower("ViT-B-32", "openai")
