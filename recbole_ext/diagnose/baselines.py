"""Group 1: the model beats what knows nothing, or only one thing, on the same test and metric."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from recbole_ext.compare import charts
from recbole_ext.compare.item_slices import features_of
from recbole_ext.diagnose.check import FAIL, OK, WARN, Section
from recbole_ext.diagnose.evaluation import Evaluation, margin
from recbole_ext.diagnose.scorers import AtRandom, ByContent, ByItem, Scorer, click_rates, one_hot
from recbole_ext.diagnose.subject import Subject
from recbole_ext.features.inspect import pooled
from recbole_ext.features.manifest import NAME
from recbole_ext.features.store import FeatureStore
from recbole_ext.features.texts import read_atomic

TITLE = "Baselines"
CATEGORIES = ("category", "categories", "genre", "genres", "class", "subcategory", "brand")
"""Fields of an item file that say what kind an item is."""
MANY = 100
"""Positives of a test from which on a model that does not clearly beat chance is a failure."""
_NO_SIGNAL = (
    "Train longer or with a higher learning_rate, and look at the checks of learning and of the "
    "data: the model has learned nothing that it ranks by."
)
_NOT_WORTH = (
    "Tune learning_rate, regularisation and negatives before anything else: a rule without "
    "training does as well."
)


def check(subject: Subject, section: Section) -> None:
    """Compare the model with each scorer that the data allow."""
    own = subject.own
    section.known(f"{own.name} of the model", own.value)
    values = {subject.config["model"]: own.value}
    for name, scorer in scorers(subject, section):
        other = subject.evaluate(scorer)
        values[name] = other.value
        _compare(section, own, other, name)
    if min(values.values()) >= 0:
        shown = {name: (value, value, value) for name, value in values.items()}
        section.figures.append(charts.bars(f"Test {own.name}", shown))


def _compare(section: Section, own: Evaluation, other: Evaluation, name: str) -> None:
    must = name in ("constant", "random")
    gain, least = own.value - other.value, margin(own, other)
    clear = gain > least
    many = own.n >= MANY  # fewer cannot tell a model from chance
    # content rules are strong on small data: to lose to one is a warning
    fails = (must and (not clear if many else gain <= 0)) or (
        name == "popularity" and gain < -least
    )
    severity = FAIL if fails or np.isnan(gain) else OK if clear else WARN
    section.flag(
        f"gain over {name} ({other.value:.4f})",
        gain,
        f"> {least:.4g} (2 standard errors)",
        severity,
        _NO_SIGNAL if must else _NOT_WORTH,
    )


def scorers(subject: Subject, section: Section) -> Iterator[tuple[str, Scorer]]:
    """Yield name and scorer of each baseline; say which the data do not allow."""
    fields, n_items = (subject.uid, subject.iid), subject.dataset.item_num
    labels = subject.labels("train")
    mean = 0.0 if labels is None else float(labels.mean())
    yield "constant", ByItem(*fields, torch.full((n_items,), mean))
    yield "popularity", popularity(subject)
    if subject.has_labels and not subject.own.is_binary:
        section.skip("gain over random and content", "A cosine is no rating, and chance is none.")
        return
    yield "random", AtRandom(*fields, n_items)
    classes = categories(subject)
    if classes is None:
        named = ", ".join(CATEGORIES)
        section.skip("gain over category match", f"The item file has none of the fields {named}.")
    else:
        taken = subject.taken, subject.dataset.user_num
        yield f"category match by {classes[0]}", ByContent(*fields, one_hot(classes[1]), *taken)
    texts = text_features(subject)
    if not texts:
        section.skip("gain over text cosine", "There is no stored feature of the items' texts.")
    for name in texts:
        taken = subject.taken, subject.dataset.user_num
        yield f"cosine of {Path(name).name}", ByContent(*fields, vectors(subject, name), *taken)


def popularity(subject: Subject) -> ByItem:
    """Return the scorer by what items have in training: clicks, or the share of them."""
    labels = subject.labels("train")
    values = subject.popularity.float()
    if subject.has_labels and labels is not None:
        items, n_items = subject.rows("train")[subject.iid], subject.dataset.item_num
        values = click_rates(items, torch.from_numpy(labels), n_items)
    return ByItem(subject.uid, subject.iid, values)


def categories(subject: Subject) -> tuple[str, list[list[str]]] | None:
    """Return the field that says what kind an item is, and the classes of each item [N]."""
    config = subject.config
    path = Path(config["data_path"]) / f"{config['dataset']}.item"
    if not path.is_file():
        return None
    rows = read_atomic(path, config["encoding"] or "utf-8", config["field_separator"])
    there = list(next(iter(rows.values()), {}))
    field = next((name for name in CATEGORIES if name in there), None)
    if field is None:
        return None
    tokens = subject.dataset.field2id_token[subject.iid]
    within = config["seq_separator"]
    classes = [rows.get(str(token), {}).get(field, "").split(within) for token in tokens]
    return field, [[name for name in several if name] for several in classes]


def text_features(subject: Subject) -> list[str]:
    """Return the stored features of the items' texts: those of the run, and those of the data."""
    config = subject.config
    place = Path(config["features_dir"]) / config["dataset"]
    there = [str(path.parent) for path in sorted(place.glob(f"*/{NAME}"))]
    found: dict[tuple[str, str], str] = {}
    for name in [*features_of(config.resolved), *there]:
        manifest = subject.stored(name)[1].manifest if name not in there else None
        manifest = manifest or FeatureStore(name).manifest
        if manifest.of == "item" and manifest.kind == "text":
            found.setdefault((manifest.name, manifest.generation), name)
    return list(found.values())


def vectors(subject: Subject, name: str) -> torch.Tensor:
    """Return one vector for each item [N, F], zeros where it has none."""
    aligned, store = subject.stored(name)
    has = np.flatnonzero(aligned.present)  # [n]
    found = np.zeros((len(aligned.place), store.values.shape[-1]), np.float32)  # [N, F]
    found[has] = pooled(store, aligned.place[has])
    return torch.from_numpy(found)
