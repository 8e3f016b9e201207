"""``recbole-ext pipeline``: retriever, candidates, reranker, ranking and report in one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from recbole_ext.atomic import replacing
from recbole_ext.config import Config
from recbole_ext.data.feature_origin import file_digest, origin_of
from recbole_ext.data.features import feature_folder
from recbole_ext.locks import sole_use
from recbole_ext.paths import data_folder
from recbole_ext.pipeline import manifest as candidates_manifest
from recbole_ext.pipeline.candidates import Candidates, read_candidates, write_candidates
from recbole_ext.pipeline.corpus import DatasetCorpus, that_count, train_into
from recbole_ext.pipeline.folders import make
from recbole_ext.pipeline.ranked_folder import rank_and_write
from recbole_ext.pipeline.ranking import Ranking
from recbole_ext.pipeline.rerank_report import report_of
from recbole_ext.pipeline.retrieve import PHASES, check_history, retrieve
from recbole_ext.pipeline.sizes import sizes_of
from recbole_ext.pipeline.steps import Steps, contents_of
from recbole_ext.pipeline.trained import NAME, Spec, open_reranker, train_reranker, training_rows
from recbole_ext.rerankers.build import settings_of
from recbole_ext.run_folder import plain, write_text
from recbole_ext.settings_check import check_types, typed_comments
from recbole_ext.settings_reading import lay_over, parse_overrides, read_yaml
from recbole_ext.types import UserError, suggest


def read_plan(config: str | None, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a pipeline: ours < the file < the command line, each checked.

    Raises:
        UserError: A key that there is not, or a value of another type.
    """
    ours = data_folder("properties") / "pipeline" / "two_stage.yaml"
    defaults = read_yaml(ours)
    plan = dict(defaults)
    for given in (read_yaml(config) if config else {}, parse_overrides(overrides)):
        for key in (key.partition(".")[0] for key in given):
            if key not in plan:
                hint = suggest(key, plan) or f" (there are: {', '.join(plan)})"
                raise UserError(f"a pipeline has no setting '{key}'{hint}")
        lay_over(plan, given)
    check_types(plan, typed_comments([ours]), defaults)
    check_history(plan["history"])
    if not 0 <= plan["valid_share"] < 1:
        raise UserError(f"valid_share takes a share from 0 to below 1, not {plan['valid_share']}")
    return plan


def run_pipeline(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Do what is not done yet, and write ``report.md``, ``results.csv`` and ``result.json``.

    Args:
        plan: As :func:`read_plan` returns it.

    Raises:
        UserError: A setting that some step refuses, before the first one begins where it can be.
    """
    pipeline = Pipeline(plan)
    folder = make(Path(plan["output_dir"] or f"runs/two_stage-{plan['dataset']}"))
    with sole_use(folder, what="the pipeline"):
        try:
            return pipeline.go(Steps(folder))
        except KeyboardInterrupt as interrupt:
            interrupt.args = ("give the same command once more: it goes on",)
            raise


class Pipeline:
    """The steps of a plan, each a function of what goes into it.

    Args:
        plan: As :func:`read_plan` returns it.

    Raises:
        UserError: A setting that cannot be meant; nothing has begun.
    """

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.plan = plan
        given = {key: plan[key] for key in ("mode", "batch_size", "text_template")}
        sizes = {key: plan[key] for key in ("retrieval_top_k", "rerank_top_k", "output_top_k")}
        retrieval, rerank, output = sizes.values()
        self.sizes = sizes_of(retrieval, rerank, output, k=max(retrieval, 1))
        is_sampled = plan["mode"] == "ground_truth"
        self.ranking = Ranking(
            **given,
            **{**sizes, "retrieval_top_k": None if is_sampled else sizes["retrieval_top_k"]},
            topk=",".join(map(str, plan["topk"])),
        )
        self.sizes.cutoffs(self.ranking.cutoffs)
        self.spec = Spec(plan["reranker"], plan["reranker_settings"] or {}, plan["seed"])
        self.settings = settings_of(self.spec.name, self.spec.settings)
        self.config  # noqa: B018 - refuses what the retriever's settings have wrong

    @cached_property
    def config(self) -> Config:
        """The retriever's settings."""
        run = self.plan["retriever_run"]
        if run is not None:
            if not (Path(run) / "config.yaml").is_file():
                raise UserError(f"retriever_run: {run} holds no run (no config.yaml)")
            return Config(config_file_list=[Path(run) / "config.yaml"])
        return Config(self.plan["retriever"], self.plan["dataset"], None, self._retriever_settings)

    @property
    def _retriever_settings(self) -> dict[str, Any]:
        place, seed = self.plan["data_path"], self.plan["seed"]
        common = {"seed": seed} if place is None else {"seed": seed, "data_path": place}
        return {**common, **(self.plan["retriever_settings"] or {})}

    def go(self, steps: Steps) -> dict[str, Any]:
        """Do the steps, report, and return what ``result.json`` holds."""
        run = self._retriever(steps)
        found = read_candidates(self._candidates(steps, run), _fingerprint(run))
        corpus = DatasetCorpus(found.manifest)
        trained = self._reranker(steps, found, corpus)
        result = self._rank(steps, found, corpus, trained)
        return self._report(steps, result)

    def _retriever(self, steps: Steps) -> Path:
        if self.plan["retriever_run"] is not None:
            return Path(self.plan["retriever_run"])
        inputs = {
            "settings": that_count(self.config.resolved),
            "data": origin_of(self.config, ("inter",)),
        }

        def train(folder: Path) -> None:
            train_into(
                folder, self.plan["retriever"], self.plan["dataset"], self._retriever_settings
            )

        return steps.do("retriever", inputs, "result.json", train)

    def _candidates(self, steps: Steps, run: Path) -> Path:
        k, history = self.plan["retrieval_top_k"], self.plan["history"]
        path = run / "best.pt"
        if not path.is_file():
            raise UserError(f"{run} has no best.pt: it is no finished run; train it anew")
        inputs = {
            "checkpoint": file_digest(path),
            "data": origin_of(self.config, ("inter",)),
            "k": k,
            "history": history,
        }

        def keep(folder: Path) -> None:
            write_candidates(make(folder), retrieve(run, k, list(PHASES), history))

        return steps.do("candidates", inputs, candidates_manifest.NAME, keep)

    def _reranker(self, steps: Steps, found: Candidates, corpus: DatasetCorpus) -> Path | None:
        """Train the reranker on the valid split's rows, which the retriever has not learned."""
        if not (self.plan["train_reranker"] and self.spec.build(corpus).is_trainable):
            return None
        n, share = self.sizes.rerank_top_k, self.plan["valid_share"]
        inputs = {**self._reranker_inputs(found), "rerank_top_k": n, "valid_share": share}

        def train(folder: Path) -> None:
            texts = corpus.texts(self.ranking.text_template)
            rows = replace(found.split("valid"), texts=texts)
            parts = training_rows(rows, n, self.spec.seed, share)
            about = {"candidates": found.manifest.digest, "split": "valid"}
            train_reranker(self.spec, corpus, parts, make(folder), about)

        return steps.do("reranker", inputs, NAME, train)

    def _reranker_inputs(self, found: Candidates) -> dict[str, Any]:
        named = dict(self.settings)
        if named.get("feature"):
            place = {"features_dir": named["features_dir"], "dataset": found.manifest.dataset}
            named["feature"] = str(feature_folder(place, named["feature"]))
        return {
            "candidates": found.manifest.digest,
            "reranker": self.spec.name,
            "settings": self.settings,
            "contents": contents_of(named),
            "seed": self.spec.seed,
            "texts": [self.ranking.text_template, origin_of(self.config, ("item",))],
        }

    def _rank(
        self, steps: Steps, found: Candidates, corpus: DatasetCorpus, trained: Path | None
    ) -> dict[str, Any]:
        inputs = {
            **self._reranker_inputs(found),
            "trained": trained.name if trained else None,
            "ranking": vars(self.ranking),
        }

        def rank(folder: Path) -> None:
            spec, ready = (
                open_reranker(trained, corpus, self.ranking.split)
                if trained
                else (self.spec, self.spec.build(corpus))
            )
            texts = corpus.texts(self.ranking.text_template)
            sizes = self.ranking.sizes(found.manifest.k)
            rank_and_write(found, corpus, texts, (spec, ready), self.ranking, sizes, folder)

        place = steps.do("rerank", inputs, "result.json", rank)
        return json.loads((place / "result.json").read_text(encoding="utf-8"))

    def _report(self, steps: Steps, result: dict[str, Any]) -> dict[str, Any]:
        result = {**result, "steps": steps.done, "plan": dict(self.plan)}
        rows = [
            {"mode": result["mode"], "block": block, "metric": name, "value": value}
            for block, values in result["metrics"].items()
            for name, value in values.items()
        ]
        with replacing(steps.folder / "results.csv") as temporary:
            pd.DataFrame(rows).to_csv(temporary, index=False)
        write_text(steps.folder / "report.md", report_of(result))
        write_text(steps.folder / "result.json", json.dumps(plain(result), indent=2) + "\n")
        return {**result, "folder": str(steps.folder)}


def _fingerprint(run: Path) -> str | None:
    """Return of which data a run was; ``None`` where its test is not finished."""
    path = run / "result.json"
    if not path.is_file():
        return None
    return json.loads(path.read_text(encoding="utf-8")).get("dataset_fingerprint")
