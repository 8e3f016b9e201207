"""Towers of open_clip's own making: tiny architectures, weights in a file, the real loading."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from recbole_ext.features.open_clip_encoder import OpenClipEncoder
from recbole_ext.features.open_clip_weights import load_tower
from recbole_ext.types import UserError

TEXT = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
ARCHITECTURES = {
    "tiny-vit": VIT,
    "tiny-vit-avg": {**VIT, "pool_type": "avg", "final_ln_after_pool": True, "patch_size": 8},
    "tiny-vit-pooled": {
        **VIT,
        "attentional_pool": True,
        "attn_pooler_queries": 3,
        "attn_pooler_heads": 2,
    },
    "tiny-resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64},
    "tiny-timm": {
        "image_size": 160,
        "timm_model_name": "test_vit",
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
    },
}
N_PATCHES = {"tiny-vit": 4, "tiny-vit-avg": 16, "tiny-vit-pooled": 4, "tiny-resnet": 4}
N_PATCHES["tiny-timm"] = 100  # 160 pixels by 16, both ways


@pytest.fixture(scope="module")
def open_clip(tmp_path_factory):
    open_clip = pytest.importorskip("open_clip", reason="needs the extra [image]")
    folder = tmp_path_factory.mktemp("configs")
    for name, vision in ARCHITECTURES.items():
        config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": TEXT}
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    return open_clip


@pytest.fixture(scope="module")
def weights(open_clip, tmp_path_factory):
    """Architecture -> a file of weights."""
    folder = tmp_path_factory.mktemp("weights")
    files = {}
    for name in ARCHITECTURES:
        torch.manual_seed(len(name))
        model = open_clip.create_model(name)
        with torch.no_grad():
            for parameter in model.parameters():  # where it begins at zero or one as well
                parameter += 0.1 * torch.randn_like(parameter)
        files[name] = folder / f"{name}.pt"
        torch.save(model.state_dict(), files[name])
    return files


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng, found = np.random.default_rng(0), []
    for i, size in enumerate([(40, 30), (30, 70), (32, 32), (9, 12), (64, 64)]):
        coarse = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8))
        coarse.resize(size).save(folder / f"{i}.png")
        found.append(folder / f"{i}.png")
    return found


def reference(open_clip, arch, file, paths):
    """Return open_clip's model and its images [n, 3, H, W], by its own ways alone."""
    model, _, preprocess = open_clip.create_model_and_transforms(arch, pretrained=str(file))
    return model.eval(), torch.stack([preprocess(Image.open(path)) for path in paths])


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_global_vectors_are_open_clips(arch, open_clip, weights, pictures):
    model, images = reference(open_clip, arch, weights[arch], pictures)
    with torch.no_grad():
        wanted = model.encode_image(images)  # [n, D]
    encoder = OpenClipEncoder(arch, str(weights[arch]), device="cpu")
    found = encoder.encode([(path,) for path in pictures])
    assert found.values.shape == (5, 16) and wanted.std(0).min() > 1e-4
    np.testing.assert_allclose(found.values, wanted.numpy(), rtol=1e-4, atol=1e-5)
    for i, path in enumerate(pictures):  # whatever else is in the batch
        alone = encoder.encode([(path,)]).values[0]
        np.testing.assert_allclose(alone, found.values[i], rtol=1e-4, atol=1e-5)


def tokens_of(arch, model, images):
    """Return the patch tokens [n, P, D] by another way than the encoder's."""
    visual = model.visual
    if arch == "tiny-timm":
        return visual.trunk.forward_features(images)[:, visual.trunk.num_prefix_tokens :]
    place = visual.layer4 if arch == "tiny-resnet" else visual.transformer
    caught = []
    place.register_forward_hook(lambda module, given, output: caught.append(output))
    visual(images)
    if arch == "tiny-resnet":
        rows = [caught[0][:, :, i, j] for i in range(2) for j in range(2)]  # P of [n, D]
        return torch.stack(rows, 1)
    patches = caught[0][:, 1:]  # without the class token
    return patches if arch == "tiny-vit-pooled" else visual.ln_post(patches)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_patch_tokens_are_the_last_layers_output(arch, open_clip, weights, pictures):
    model, images = reference(open_clip, arch, weights[arch], pictures)
    with torch.no_grad():
        wanted = tokens_of(arch, model, images)  # [n, P, D]
    encoder = OpenClipEncoder(arch, str(weights[arch]), tokens="patches", device="cpu")
    found = encoder.encode([(path,) for path in pictures])
    assert found.values.shape[1] == N_PATCHES[arch] and found.mask.all()
    np.testing.assert_allclose(found.values, wanted.numpy(), rtol=1e-4, atol=1e-4)


def test_coca_has_global_vectors_of_its_own_length(open_clip, tmp_path, pictures):
    vision = {**ARCHITECTURES["tiny-vit-pooled"], "output_tokens": True}
    text = {**TEXT, "embed_cls": True, "output_tokens": True}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text, "custom_text": True}
    config["multimodal_cfg"] = {**TEXT, "attn_pooler_heads": 2}
    (tmp_path / "tiny-coca.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    file = tmp_path / "w.pt"
    torch.save(open_clip.create_model("tiny-coca").state_dict(), file)
    model, images = reference(open_clip, "tiny-coca", file, pictures)
    with torch.no_grad():
        wanted = model.encode_image(images, normalize=False)
    found = OpenClipEncoder("tiny-coca", str(file)).encode([(path,) for path in pictures])
    np.testing.assert_allclose(found.values, wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_weights_are_known_by_what_is_in_them(open_clip, weights, tmp_path):
    file = weights["tiny-vit"]
    moved = tmp_path / "elsewhere.pth"
    state = torch.load(file, weights_only=True)
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, moved)
    one, two = (OpenClipEncoder("tiny-vit", str(path)).source for path in (file, moved))
    assert one.digest() == two.digest()
    assert one.encoder == "open_clip/tiny-vit/tiny-vit.pt"
    state["visual.proj"][0, 0] += 1
    torch.save(state, moved)
    assert OpenClipEncoder("tiny-vit", str(moved)).source.digest() != one.digest()


def test_random_weights_are_the_same_each_time_and_said(open_clip, caplog):
    torch.manual_seed(3)
    one = load_tower("tiny-vit", "random")
    drawn = torch.rand(1)
    torch.manual_seed(4)
    two = load_tower("tiny-vit", "random")
    for name, value in one.visual.state_dict().items():
        assert torch.equal(value, two.visual.state_dict()[name]), name
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), drawn)  # nobody else's numbers are touched
    assert any("random weights" in note for note in one.notes)
    assert "open_clip/tiny-vit/random has random weights" in caplog.text
    assert f"open_clip {open_clip.__version__}" in one.notes


def test_a_folder_brings_its_weights(open_clip, weights, tmp_path):
    config = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": TEXT}
    preprocess = {"mean": [0.5] * 3, "std": [0.25] * 3, "resize_mode": "squash"}
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    (tmp_path / "open_clip_config.json").write_text(text)
    arch = f"local-dir:{tmp_path}"
    with pytest.raises(UserError, match="cannot load architecture .*weights"):
        load_tower(arch, None)
    torch.save(torch.load(weights["tiny-vit"]), tmp_path / "open_clip_pytorch_model.bin")
    tower = load_tower(arch, None)
    assert tower.preprocess["mean"] == [0.5] * 3 and tower.preprocess["resize_mode"] == "squash"
    other = load_tower("tiny-vit", str(weights["tiny-vit"]))
    for name, value in tower.visual.state_dict().items():
        assert torch.equal(value, other.visual.state_dict()[name]), name
    assert tower.model == other.model
    with pytest.raises(UserError, match="brings its weights; leave out pretrained=openai"):
        load_tower(arch, "openai")


@pytest.mark.parametrize(
    ("arch", "pretrained", "sentence"),
    [
        ("ViT-B-23", "openai", r"no architecture 'ViT-B-23'; did you mean 'ViT-B-32'"),
        ("ViT-B-32", None, r"set pretrained: nothing says .*the tags of 'ViT-B-32' are openai,"),
        ("ViT-B-32", "openia", r"is no tag of 'ViT-B-32' and no file; did you mean 'openai'"),
        ("tiny-vit", "gone.pt", r"pretrained=gone.pt is no tag .*'tiny-vit' has no tags"),
    ],
)
def test_names_that_open_clip_lacks_are_refused(arch, pretrained, sentence, open_clip):
    with pytest.raises(UserError, match=sentence):
        load_tower(arch, pretrained)


def test_weights_that_do_not_fit_are_refused_in_one_sentence(open_clip, weights, tmp_path):
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"not weights")
    for file in (weights["tiny-resnet"], broken):
        with pytest.raises(UserError, match=re.escape(f"pretrained={file} (")) as said:
            load_tower("tiny-vit", str(file))
        assert "\n" not in str(said.value) and len(str(said.value)) < 700
