"""What ``explain`` prints."""

from __future__ import annotations

from types import SimpleNamespace

from recbole_ext import report
from recbole_ext.models.explanation import Neighbour


class Model:
    """Answers every question with the same neighbour."""

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def explain(self, user=None, history=None):
        return [Neighbour(0, 2, "u2", [1], ["i1"], 2, "i2", 0.9, 1.0, self.alpha)]


def explain(monkeypatch, alpha: float) -> str:
    dataset = SimpleNamespace(
        uid_field="user_id",
        iid_field="item_id",
        field2token_id={"user_id": {"u1": 1}},
        field2id_token={"item_id": ["[PAD]", "i1", "i2"]},
    )
    run = SimpleNamespace(model=Model(alpha), dataset=dataset, config={"dataset": "tiny"})
    monkeypatch.setattr(report, "load_run", lambda folder: run)
    monkeypatch.setattr(report, "read_titles", lambda config: {"i2": "The Second"})
    monkeypatch.setattr(report, "_history", lambda run, user: [1])
    return report.explain_user("folder", "u1")


def test_the_neighbours_and_their_share_are_told(monkeypatch):
    text = explain(monkeypatch, 0.35)
    assert "weight of the neighbours (alpha): 0.35" in text and "alone" not in text
    assert "i2 (The Second) - user u2 after i1" in text


def test_an_alpha_of_zero_says_that_the_list_is_the_encoders(monkeypatch):
    line = next(x for x in explain(monkeypatch, 0.0).splitlines() if "(alpha)" in x)
    assert line == "weight of the neighbours (alpha): 0; the list is the encoder's alone"


def test_a_run_without_a_test_set_says_so():
    result = {
        "model": "BPR",
        "test": {},
        "seconds": {"train": 1.0},
        "peak_memory_gib": {"train": 1.0},
        "mask_history": True,
        "seed": 1,
        "folder": "runs/x",
    }
    text = report.result_table(result)
    assert "no test metrics: eval_args.split leaves no test set" in text and "runs/x" in text
    assert "no test metrics" not in report.result_table({**result, "test": {"ndcg@10": 0.1}})
