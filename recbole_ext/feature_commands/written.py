"""``features profile`` and ``features describe``: texts that a language model writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from recbole_ext.data.build import create_dataset
from recbole_ext.data.check import check_files
from recbole_ext.data.training_histories import training_histories
from recbole_ext.feature_commands.common import ask, config_of, side_rows
from recbole_ext.feature_commands.texts import SERVER
from recbole_ext.features.cost import confirming
from recbole_ext.features.endpoint import Endpoint
from recbole_ext.features.llm import EndpointWriter, LocalWriter, Writer
from recbole_ext.features.profiles import (
    DESCRIPTION,
    PROFILE,
    description_prompts,
    own_cutoffs,
    profile_prompts,
    read_template,
)
from recbole_ext.features.writing import TEXTS, write_texts
from recbole_ext.types import UserError


def write_profiles(
    dataset: str,
    name: str,
    writer: str,
    share: float = 0.5,
    cutoff: float | None = None,
    template: str = "",
    line: str | None = None,
    max_items: int = 50,
    max_new_tokens: int = 256,
    users: int | None = None,
    requests_per_minute: float | None = None,
    price_per_million: float | None = None,
    written_price_per_million: float | None = None,
    yes: bool = False,
    data_path: str | None = None,
    features_dir: str = "features",
) -> None:
    """Have the taste of each user written up from the training history up to a cut-off.

    Args:
        dataset: Dataset.
        name: Of the texts.
        writer: A folder or hub id of a causal language model, or endpoint:MODEL for a server.
        share: Each user's cut-off ends this share of the training history; what comes after it can
            be trained on with the text.
        cutoff: Instead one time for all users.
        template: File of the prompt, with {history}.
        line: How an item reads in it, as "{title} ({genre})".
        max_items: The latest so many items.
        max_new_tokens: Most tokens of a text.
        users: Only so many users, for a trial.
        requests_per_minute: Limit for a server.
        price_per_million: Tokens sent; for the estimate before a server is asked.
        written_price_per_million: Tokens written.
        yes: Do not ask before a server is.
        data_path: Folder of the datasets.
        features_dir: Where to: features_dir/dataset/name/texts.parquet.
    """
    config = config_of(dataset, data_path)
    check_files(config)
    histories = training_histories(create_dataset(config).build()[0])
    histories = dict(list(histories.items())[:users])
    _, items = side_rows(dataset, "item", data_path)
    prompts, cutoffs = profile_prompts(
        histories,
        items,
        own_cutoffs(histories, share) if cutoff is None else cutoff,
        template=read_template(template) if template else PROFILE,
        line=line,
        max_items=max_items,
    )
    folder = Path(features_dir) / dataset / name
    prices = price_per_million, written_price_per_million
    made = _writer(writer, max_new_tokens, requests_per_minute)
    _write(folder, prompts, made, cutoffs, yes, max_new_tokens, prices)
    _say(folder, dataset, name, "user")


def write_descriptions(
    dataset: str,
    name: str,
    writer: str,
    template: str = "",
    max_new_tokens: int = 256,
    items: int | None = None,
    requests_per_minute: float | None = None,
    price_per_million: float | None = None,
    written_price_per_million: float | None = None,
    yes: bool = False,
    data_path: str | None = None,
    features_dir: str = "features",
) -> None:
    """Have each item described from its fields.

    Args:
        dataset: Dataset.
        name: Of the texts.
        writer: A folder or hub id of a causal language model, or endpoint:MODEL for a server.
        template: File of the prompt, with {fields} or fields by their names.
        max_new_tokens: Most tokens of a text.
        items: Only so many items, for a trial.
        requests_per_minute: Limit for a server.
        price_per_million: Tokens sent; for the estimate before a server is asked.
        written_price_per_million: Tokens written.
        yes: Do not ask before a server is.
        data_path: Folder of the datasets.
        features_dir: Where to: features_dir/dataset/name/texts.parquet.
    """
    _, rows = side_rows(dataset, "item", data_path)
    rows = dict(list(rows.items())[:items])
    used = read_template(template) if template else DESCRIPTION
    folder = Path(features_dir) / dataset / name
    prices = price_per_million, written_price_per_million
    made = _writer(writer, max_new_tokens, requests_per_minute)
    prompts = description_prompts(rows, template=used)
    _write(folder, prompts, made, None, yes, max_new_tokens, prices)
    _say(folder, dataset, name, "item")


def _writer(name: str, max_new_tokens: int, requests_per_minute: float | None) -> Writer:
    if max_new_tokens < 1:
        raise UserError(f"--max_new_tokens={max_new_tokens}: a text has one token or more")
    if not name.startswith(SERVER):
        return LocalWriter(name, max_new_tokens=max_new_tokens)
    server = Endpoint(requests_per_minute=requests_per_minute)
    settings = {"max_tokens": max_new_tokens, "temperature": 0}
    return EndpointWriter(server, name.removeprefix(SERVER), settings)


def _write(
    folder: Path,
    prompts: Mapping[str, str | None],
    writer: Writer,
    cutoffs: Mapping[str, float] | None,
    yes: bool,
    max_new_tokens: int,
    prices: tuple[float | None, float | None],
) -> None:
    confirm = None
    if isinstance(writer, EndpointWriter):
        confirm = confirming(
            ask(yes),
            max_new_tokens=max_new_tokens,
            price_per_million=prices[0],
            written_price_per_million=prices[1],
        )
    texts = write_texts(folder, prompts, writer, cutoffs=cutoffs, confirm=confirm).texts
    n_written = sum(text is not None for text in texts.values())
    print(f"{folder / TEXTS}: {n_written} of {len(texts)} texts")


def _say(folder: Path, dataset: str, name: str, of: str) -> None:
    print(
        f"encode them: recbole-ext features text --dataset={dataset} --name={name}_minilm "
        f"--texts={folder / TEXTS} --of={of}"
    )
