"""From settings to a dataset and its three loaders.

RecBole's own functions do the work. What differs: a model may bring its dataset and training
loader, evaluation loaders are ours (frozen negatives, explicit history masking), and no cache is
read unless the user asked for one.
"""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recbole.data.dataloader import (
    FullSortEvalDataLoader,
    NegSampleEvalDataLoader,
    TrainDataLoader,
)
from recbole.data.dataset import Dataset
from recbole.data.utils import create_samplers, get_dataloader
from recbole.sampler import KGSampler
from recbole.utils import ModelType

from recbole_ext.data.bucketing import BucketedTrainDataLoader
from recbole_ext.data.builtin_datasets import OURS
from recbole_ext.data.cache import cached
from recbole_ext.data.cells import bad_cell
from recbole_ext.data.check import (
    check_files,
    check_impressions,
    check_labels,
    needs_impressions,
)
from recbole_ext.data.eval_loaders import (
    FrozenNegativesLoader,
    MaskedFullSortLoader,
    attach_history,
)
from recbole_ext.data.fast_dataset import LOADING
from recbole_ext.data.vocabulary import dataset_fingerprint
from recbole_ext.registry import is_accelerated, is_ours
from recbole_ext.types import UserError

_BY_TYPE = {
    ModelType.SEQUENTIAL: "SequentialDataset",
    ModelType.KNOWLEDGE: "KnowledgeBasedDataset",
}
_OF_NO_MODEL = "inter"
"""A source that RecBole's models, which ask for an enum's members, do not find."""
_EVAL_LOADERS = {
    FullSortEvalDataLoader: MaskedFullSortLoader,
    NegSampleEvalDataLoader: FrozenNegativesLoader,
}


def dataset_class(config: Any) -> type:
    """Return the model's own dataset class, else RecBole's by model name, else by model type.

    RecBole's classes have our steps in them (``builtin_datasets.py``).
    """
    own = getattr(config.model_class, "dataset_class", None)
    if own is not None:
        return own
    module = importlib.import_module("recbole.data.dataset")
    fallback = _BY_TYPE.get(config["MODEL_TYPE"], "Dataset")
    theirs = getattr(module, f"{config['model']}Dataset", None) or getattr(module, fallback)
    return OURS.get(theirs, theirs)


def create_dataset(config: Any) -> Any:
    """Load and filter the dataset that ``config`` names; ``fingerprint`` says what is in it.

    Raises:
        UserError: The files are missing or malformed, or nothing is left after filtering.
    """
    check_files(config)
    dataset = cached(config, dataset_class(config), lambda: _load(config))
    if len(dataset.inter_feat) == 0:
        raise UserError(
            f"dataset '{config['dataset']}': no interactions are left after filtering; see "
            "val_interval, user_inter_num_interval and item_inter_num_interval"
        )
    check_impressions(config, dataset)
    if needs_impressions(config):  # a name of a group of rows, from which no model is to learn
        dataset.field2source[config["IMPRESSION_FIELD"]] = _OF_NO_MODEL
    dataset.fingerprint = dataset_fingerprint(dataset)
    return dataset


def create_loaders(config: Any, dataset: Any) -> tuple[Any, Any, Any]:
    """Split the dataset and return its training, validation and test loaders.

    The steps and their order are RecBole's ``data_preparation``, so the batches are RecBole's too.
    """
    model_class = config.model_class
    is_fast = is_accelerated(config, model_class)  # refuses before there is work
    check_labels(config, dataset)
    with _said_of(config):
        built = dataset.build()
    train_set, valid_set, test_set = built
    if len(train_set) == 0:
        raise UserError(
            f"dataset '{config['dataset']}': the training split is empty; every user needs at "
            "least 3 interactions for leave-one-out, and see eval_args"
        )
    with _said_of(config), _uncollected():
        samplers = create_samplers(config, dataset, built)
    train_class = getattr(model_class, "train_loader_class", None)
    if train_class is not None and not isinstance(train_class, type):
        train_class = train_class(config)
    train_class = train_class or get_dataloader(config, "train")
    is_sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
    buckets = is_sequential and is_fast and config["bucket_window"]
    if buckets and train_class is TrainDataLoader:
        train_class = BucketedTrainDataLoader
    elif is_sequential and config["bucket_window"] and not (buckets or is_ours(model_class)):
        raise UserError(
            f"bucket_window: {config['bucket_window']} groups rows only with accelerate: True; "
            f"{config['model']} is trained as RecBole does, so give both, or neither"
        )
    if config["MODEL_TYPE"] == ModelType.KNOWLEDGE:
        negatives = config["train_neg_sample_args"]
        kg_sampler = KGSampler(dataset, negatives["distribution"], negatives["alpha"])
        train = train_class(config, train_set, samplers[0], kg_sampler, shuffle=True)
    else:
        train = train_class(config, train_set, samplers[0], shuffle=config["shuffle"])
    valid = _eval_loader(config, "valid")(config, valid_set, samplers[1], shuffle=False)
    test = _eval_loader(config, "test")(config, test_set, samplers[2], shuffle=False)
    if config["mask_history"] and config["MODEL_TYPE"] == ModelType.SEQUENTIAL:
        if config["benchmark_filename"] is not None:
            raise UserError(
                "mask_history of a sequential model needs the histories, which files that are "
                "split already (benchmark_filename) do not hold; leave out one of the two"
            )
        attach_history(valid, built, "valid")
        attach_history(test, built, "test")
    return train, valid, test


def _load(config: Any) -> Any:
    with _said_of(config), LOADING, _no_missing_times(config), _uncollected():
        return dataset_class(config)(config)


@contextmanager
def _no_missing_times(config: Any) -> Iterator[None]:
    """Refuse interactions without a time where time decides the split; RecBole takes the mean."""
    fill_nan = Dataset._fill_nan

    def checked(dataset: Any) -> None:
        rows, field = dataset.inter_feat, dataset.time_field
        n_missing = int(rows[field].isna().sum()) if field in rows else 0
        if n_missing and (config["eval_args"] or {}).get("order") == "TO":
            raise ValueError(
                f"{n_missing} interactions have no '{field}' (TIME_FIELD), by which they are "
                "ordered; fill it in or leave these lines out"
            )
        fill_nan(dataset)

    Dataset._fill_nan = checked
    try:
        yield
    finally:
        Dataset._fill_nan = fill_nan


@contextmanager
def _uncollected() -> Iterator[None]:
    """Put garbage collection off: what RecBole makes by the thousand here, such as sets, stays."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def _said_of(config: Any) -> Iterator[None]:
    """Say of which dataset RecBole complains."""
    try:
        yield
    except (ValueError, KeyError, NotImplementedError) as error:
        sentence = str(error).strip().splitlines()[0].rstrip(".")
        if isinstance(error, UnicodeDecodeError):
            sentence = f"a file is not {error.encoding} text ({error.reason}); save it as UTF-8"
        elif "feat is empty" in sentence:
            sentence = (
                "nothing is left (it is empty) after filtering; see val_interval, "
                "user_inter_num_interval and item_inter_num_interval"
            )
        elif isinstance(error, ValueError):
            sentence = bad_cell(config) or sentence
        raise UserError(
            f"dataset '{config['dataset']}' in {config['data_path']}: {sentence}"
        ) from error


def _eval_loader(config: Any, phase: str) -> type:
    theirs = get_dataloader(config, phase)
    return _EVAL_LOADERS.get(theirs, theirs)
