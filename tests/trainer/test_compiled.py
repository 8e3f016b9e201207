"""``torch_compile``: the same losses through torch's compiler, and what is said without one."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from recbole_ext.models.accelerate import accelerated
from recbole_ext.trainer import batch_hooks
from recbole_ext.types import UserError
from tests.trainer.training import prepare

MODELS = {
    "BPR": {},
    "LightGCN": {"train_batch_size": 256},
    "SASRec": {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0},
    "DuoRec": {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, "contrast": "su"},
}


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Lets torch trace and differentiate as it always does, but generate no C++; its graphs."""
    graphs: list[Any] = []
    from torch._dynamo.backends.debugging import aot_eager

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return aot_eager(graph, inputs)

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    torch._dynamo.reset()
    return graphs


@pytest.mark.parametrize(
    "model", [pytest.param(m, marks=[pytest.mark.slow] if m == "DuoRec" else []) for m in MODELS]
)
def test_the_losses_are_the_same(model, through, tiny_settings, tmp_path):
    found = []
    for compiles in (False, True):
        settings = {**tiny_settings, **MODELS[model], "torch_compile": compiles, "epochs": 2}
        run = prepare(model, settings, tmp_path / str(compiles))
        run.fit()
        assert bool(through) == compiles
        found.append([record["losses"] for record in run.trainer.run_log.read()])
    as_it_is, compiled = found
    assert len(as_it_is) == 2 and as_it_is[0] != as_it_is[1]
    for ours, theirs in zip(compiled, as_it_is, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_the_named_losses_of_our_models_are_what_is_compiled(monkeypatch, tiny_settings, tmp_path):
    """Without torch's compiler, which takes its time over such a model."""
    called = []

    def seen(compute: Any) -> Any:
        def call(interaction: Any) -> Any:
            called.append(compute.__name__)
            return compute(interaction)

        return call

    monkeypatch.setattr(batch_hooks, "compiled", seen)
    settings = {**tiny_settings, "torch_compile": True, "epochs": 1, "contrast": "su"}
    prepare("DuoRec", settings, tmp_path / "run").fit()
    assert set(called) == {"losses"}


@pytest.mark.slow
def test_with_accelerate(through, tiny_settings, tmp_path):
    settings = {**tiny_settings, "accelerate": True, "torch_compile": True, "epochs": 1}
    run = prepare("SASRec", settings, tmp_path / "run")
    accelerated(run.model, run.config)
    run.fit()
    assert through


def test_what_torch_cannot_compile_is_one_sentence(monkeypatch, tiny_settings, tmp_path):
    def backend(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler on this machine")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    torch._dynamo.reset()
    run = prepare("BPR", {**tiny_settings, "torch_compile": True}, tmp_path / "run")
    with pytest.raises(UserError, match="torch_compile: torch cannot.*no compiler.*leave torch_c"):
        run.fit()
