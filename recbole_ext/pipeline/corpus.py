"""The data behind candidates, read when somebody asks: what rerankers and the sampling know."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from recbole_ext.compare.split import how_split, of_data, plain_config, plain_splits
from recbole_ext.config import Config
from recbole_ext.data.titles import read_titles
from recbole_ext.features.texts import read_atomic, render
from recbole_ext.pipeline.manifest import Manifest
from recbole_ext.quick_start import load_run, run
from recbole_ext.run_folder import plain
from recbole_ext.settings_kinds import PLACE_KEYS
from recbole_ext.settings_reading import read_yaml
from recbole_ext.types import UserError


class DatasetCorpus:
    """The dataset that candidates are of, as it is now; see :class:`rerankers.base.Corpus`.

    Args:
        manifest: Of the candidates: its settings say how the data are read.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.dataset, self.fingerprint = manifest.dataset, manifest.fingerprint
        self.config = manifest.config

    @cached_property
    def _loaded(self) -> tuple[Any, list[Any]]:
        loaded, built = plain_splits(self.dataset, self.config)
        self._check(loaded.fingerprint, f"'{self.dataset}' in {loaded.config['data_path']}")
        return loaded, built

    def _check(self, fingerprint: str, what: str) -> None:
        if fingerprint != self.fingerprint:
            raise UserError(
                f"{what} has other data (fingerprint {fingerprint[:12]}) than the candidates were "
                f"made on ({self.fingerprint[:12]}); make the candidates anew, or put the files "
                "and filters back"
            )

    def check_split(self, theirs: Mapping[str, Any], what: str) -> None:
        """Refuse what was trained on another split of the data: it may know what is held out here.

        Args:
            theirs: As :func:`~recbole_ext.compare.split.how_split` tells it.
            what: What was trained, for the message.

        Raises:
            UserError: With both.
        """
        ours = how_split(self.config)
        if plain(ours) != plain(dict(theirs)):
            raise UserError(
                f"{what} splits the data by {theirs}, the candidates by {ours}, so it may have "
                "learned what is held out here; take the eval_args of the candidates (and their "
                "seed, where the order is RO)"
            )

    @cached_property
    def items(self) -> list[str]:
        """The tokens of the catalogue."""
        loaded, _ = self._loaded
        return [str(token) for token in loaded.field2id_token[loaded.iid_field][1:]]

    @cached_property
    def _counts(self) -> dict[str, int]:
        loaded, built = self._loaded
        ids = built[0].inter_feat[loaded.iid_field].numpy()  # [events]
        counts = np.bincount(ids, minlength=loaded.item_num)[1:]  # [N]
        return dict(zip(self.items, counts.tolist(), strict=True))

    def counts(self) -> Mapping[str, int]:
        """Return the training interactions of every item, by token."""
        return self._counts

    def known(self, users: Sequence[str]) -> list[set[str]]:
        """Return every item that each user took, in any split."""
        loaded, built = self._loaded
        uid, iid = loaded.uid_field, loaded.iid_field
        events = [
            np.concatenate([part.inter_feat[field].numpy() for part in built])
            for field in (uid, iid)
        ]  # 2 x [events]
        order = np.argsort(events[0], kind="stable")  # [events]
        begin = np.searchsorted(events[0][order], np.arange(loaded.user_num + 1))  # [users + 1]
        tokens, ids = loaded.field2id_token[iid], loaded.field2token_id[uid]
        taken = tokens[events[1][order]]  # [events]
        return [
            {str(item) for item in taken[begin[ids[user]] : begin[ids[user] + 1]]} for user in users
        ]

    def texts(self, template: str | None = None) -> dict[str, str]:
        """Return item -> text.

        Args:
            template: As ``"{movie_title} ({release_year})"``, of fields of the ``.item`` file; its
                titles by default.

        Raises:
            UserError: The file or a field of the template is missing.
        """
        config = plain_config(self.dataset, self.config)
        if template is None:
            return read_titles(config)
        path = Path(config["data_path"]) / f"{self.dataset}.item"
        rows = read_atomic(path, config["encoding"] or "utf-8", config["field_separator"])
        return {item: text for item, text in render(rows, template, path).items() if text}

    def open_run(self, folder: str | Path) -> Any:
        """Return a finished run with model and data, for scoring.

        Raises:
            UserError: The folder holds no run, or one of another dataset or split.
        """
        from recbole_ext.pipeline.retrieve import FULL_RANKING

        loaded = load_run(folder, FULL_RANKING)
        self._check(loaded.dataset.fingerprint, f"the run {folder}")
        self.check_split(how_split(read_yaml(Path(folder) / "config.yaml")), f"the run {folder}")
        return loaded

    def train_run(self, model: str, settings: Mapping[str, Any], folder: Path) -> None:
        """Train a model into a run folder, on the data of the candidates, filtered and split alike.

        One that was broken off goes on.

        Raises:
            UserError: The model or its settings are refused, or they split the data otherwise.
        """
        given = {**of_data(self.config), **settings}
        wanted = Config(model, self.dataset, None, given).resolved
        self.check_split(how_split(wanted), f"the {model} to train")
        train_into(folder, model, self.dataset, given)


def train_into(folder: Path, model: str, dataset: str, settings: Mapping[str, Any]) -> None:
    """Train a model into a run folder; go on with one that was broken off, keep a finished one.

    Raises:
        UserError: The model or its settings are refused, or the run there is of others.
    """
    if (folder / "config.yaml").is_file():
        _refuse_others(folder, Config(model, dataset, None, settings).resolved)
    if (folder / "result.json").is_file() and (folder / "best.pt").is_file():
        logging.getLogger().info("%s is trained already", folder)
    elif (folder / "config.yaml").is_file():
        run(resume=folder)
    else:
        run(model, dataset, config_dict={**settings, "output_dir": str(folder)})


def that_count(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a run's numbers depend on."""
    return {key: value for key, value in settings.items() if key not in PLACE_KEYS}


def _refuse_others(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse a run that was begun with other settings."""
    there, mine = (that_count(plain(s)) for s in (read_yaml(folder / "config.yaml"), wanted))
    other = [k for k in sorted({*there, *mine}) if not _is_same(there.get(k), mine.get(k))]
    if other:
        # the model says more than what follows from it
        key = "model" if "model" in other else other[0]
        raise UserError(
            f"{folder} holds a run that was begun with {key} {there.get(key)}, not "
            f"{mine.get(key)}; delete it, or name another --output_dir"
        )


def _is_same(there: Any, mine: Any) -> bool:
    """Tell whether two values are one; a run folder has its places as absolute paths."""
    if isinstance(there, str) and isinstance(mine, str):
        return Path(there).absolute() == Path(mine).absolute()
    return bool(there == mine)
