"""``recbole-ext score``: a trained news model on data that came after it, without training."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_ext.arguments import call_or_help
from recbole_ext.atomic import replacing
from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.models.news.news_recommender import NewsRecommender
from recbole_ext.quick_start import load_run
from recbole_ext.trainer.checkpoint import load_weights, read_checkpoint
from recbole_ext.types import UserError, suggest

COMMAND = "recbole-ext score"
PARTS = ("valid", "test")


def score(
    run: str,
    dataset: str,
    out: str,
    data_path: str = "",
    part: str = "test",
    text_feature: str = "",
    features_dir: str = "",
    vectors: str = "",
) -> None:
    """Write the probability of a click for each row of newer data, by a news model as it is.

    News that training has not seen are scored by their texts and entities. Learned vectors of news
    and entities, where the model has them, are taken over by token: what is new has none.

    Args:
        run: Folder of a finished run of a news model.
        dataset: Newer data in the form of convert mind.
        out: File of impression, history, news and score, tab-separated, in the order of the rows.
        data_path: Folder of the dataset's folder; without, that of the run.
        part: Of the data: test or valid.
        text_feature: Stored texts of the newer news, where they have another name than the run's.
        features_dir: Where these lie; without, that of the run.
        vectors: An .npy file for the vectors of all news; a .json list of their tokens goes beside.

    Raises:
        UserError: The folder holds no run of a news model, or the data do not fit it.
    """
    if part not in PARTS:
        raise UserError(f"--part: '{part}' is none of {', '.join(PARTS)}{suggest(part, PARTS)}")
    if not out or (vectors and Path(vectors).suffix != ".npy"):
        key = "vectors" if out else "out"
        raise UserError(f"--{key} takes a file" + (" that ends in .npy" if out else ""))
    for key, file in {"out": out, "vectors": vectors}.items():
        if not Path(file).parent.is_dir():  # before minutes are spent
            raise UserError(f"--{key}: there is no folder {Path(file).parent}; make it first")
    given = {"data_path": data_path, "text_feature": text_feature, "features_dir": features_dir}
    given = {key: value for key, value in given.items() if value}
    model, loader = carried_over(Path(run), dataset, part, given)
    with replacing(Path(out)) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        stream.write("impression_id\thist_id\titem_id\tscore\n")
        counts = Counter[str]()
        for rows, scores in scored(model, loader):
            stream.writelines(
                f"{chr(9).join(row)}\t{one:.6g}\n" for row, one in zip(rows, scores, strict=True)
            )
            counts.update(news for *_, news in rows)
    print(f"{counts.total():,} rows, {len(counts):,} news: {out}")
    if vectors:
        tokens = write_vectors(model, loader.dataset, Path(vectors))
        print(f"{len(tokens):,} vectors of {model.all_news().shape[1]}: {vectors}")


def carried_over(
    folder: Path, dataset: str, part: str, given: dict[str, Any]
) -> tuple[NewsRecommender, Any]:
    """Return the model of a run on other data, and the loader of a part of these.

    Args:
        folder: Run folder.
        dataset: Name of the other data.
        part: One of :data:`PARTS`.
        given: Settings that lie over the run's.
    """
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} holds no run (no config.yaml); a run folder is meant")
    payload = read_checkpoint(folder / "best.pt")
    quiet = {"state": "WARNING", "callbacks": None, "log_wandb": False, "nproc": 1, **given}
    config = Config(dataset=dataset, config_file_list=[folder / "config.yaml"], config_dict=quiet)
    if not issubclass(config.model_class, NewsRecommender):
        raise UserError(
            f"{folder} is a run of {config['model']}, and score takes models of news, as "
            "NRMSDocVec; other models rank items by recbole-ext candidates"
        )
    train_data, *others = create_loaders(config, create_dataset(config))
    train = train_data.dataset
    model = config.model_class(config, train)
    state = {**model.state_dict(), **payload["state_dict"]}
    for name in [name for name in state if name.startswith(model.of_training)]:
        state[name] = model.state_dict()[name]
    if model.token_fields:
        before = load_run(folder).dataset
        for name, field in model.token_fields.items():
            tokens = before.field2id_token[field], train.field2id_token[field]
            state[name] = by_token(state[name], *tokens)
    load_weights(model, {**payload, "state_dict": state}, folder / "best.pt")
    return model.to(config["device"]).eval(), others[PARTS.index(part)]


def by_token(values: Tensor, before: Sequence[str], now: Sequence[str]) -> Tensor:
    """Return rows in another order of tokens; zeros for those that were not there.

    Args:
        values: [N, ...].
        before: Tokens of the rows [N].
        now: Those wanted [N'].
    """
    row_of = {token: row for row, token in enumerate(before)}
    rows = torch.tensor([row_of.get(token, -1) for token in now])  # [N']
    found = values[rows.clamp_min(0)]  # [N', ...]
    found[rows < 0] = 0
    return found


@torch.no_grad()
def scored(
    model: NewsRecommender, loader: Any
) -> Iterator[tuple[list[tuple[str, ...]], list[float]]]:
    """Yield, batch by batch, the tokens of impression, history and news, and the scores."""
    dataset = loader.dataset
    fields = (model.IMPRESSION, model.USER_ID, model.ITEM_ID)
    device = next(model.parameters()).device
    for batch, *_ in loader:
        tokens = [map(str, dataset.id2token(field, batch[field].numpy())) for field in fields]
        yield list(zip(*tokens, strict=True)), model.predict(batch.to(device)).tolist()


@torch.no_grad()
def write_vectors(model: NewsRecommender, dataset: Any, path: Path) -> list[str]:
    """Write the vectors of all news as ``features import`` reads them; return the tokens."""
    tokens = [str(token) for token in dataset.field2id_token[model.ITEM_ID][1:]]
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        np.save(stream, model.all_news()[1:].cpu().numpy())
    with replacing(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(tokens), encoding="utf-8")
    return tokens


def run(arguments: Sequence[str]) -> int:
    """Run the command by its arguments; return the exit code."""
    return call_or_help(score, arguments, COMMAND)
