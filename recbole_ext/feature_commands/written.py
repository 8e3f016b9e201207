"""``features profile`` and ``features describe``: texts that a language model writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from recbole_ext.data.build import create_dataset
from recbole_ext.data.check import check_files
from recbole_ext.data.training_histories import training_histories
from recbole_ext.feature_commands.common import check_place, config_of, encode_command, side_rows
from recbole_ext.feature_commands.options import (
    SERVER,
    FeatureOfData,
    WritingServer,
    at_least,
    refuse_given,
)
from recbole_ext.features.hub import check_model_name
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

SHARE = 0.5
"""Of each user's training history, which a profile tells of by default."""


@dataclass(frozen=True)
class Writing:
    """What writes.

    Attributes:
        writer: A folder or hub id of a causal language model, or endpoint:MODEL for a server.
        max_new_tokens: Most tokens of a text.
    """

    writer: str
    max_new_tokens: int = 256

    def __post_init__(self) -> None:
        at_least(1, max_new_tokens=self.max_new_tokens)
        if not self.writer.removeprefix(SERVER):
            raise UserError(
                f"--writer='{self.writer}' names no model; name a folder, a hub id or {SERVER}MODEL"
            )


@dataclass(frozen=True)
class History:
    """What of a user's history is told, and how.

    Attributes:
        share: Share of each user's training history, from its beginning, that the text tells of, as
            0.5 (by default): the first half. Only what comes after it is trained on with the text,
            so with 1 no training pair has it.
        cutoff: Instead one time for all users, up to which is told.
        line: How an item reads in the prompt, as "{title} ({genre})".
        max_items: The latest so many items.
        users: Only so many users, for a trial.
    """

    share: float | None = None
    cutoff: float | None = None
    line: str | None = None
    max_items: int = 50
    users: int | None = None

    def __post_init__(self) -> None:
        at_least(1, max_items=self.max_items, users=self.users)
        if self.share is not None and self.cutoff is not None:
            raise UserError("--share and --cutoff exclude each other; give one")
        if self.share is not None and not 0 < self.share <= 1:
            raise UserError(f"--share takes a number above 0, up to 1, not {self.share}")


def write_profiles(
    feature: FeatureOfData,
    writing: Writing,
    history: History,
    server: WritingServer,
    template: str = "",
) -> None:
    """Have the taste of each user written up from the training history up to a cut-off.

    Args:
        feature: Where to: features_dir/dataset/name/texts.parquet.
        writing: What writes.
        history: What is told.
        server: How one is asked.
        template: File of the prompt, with {history}.
    """
    _check(feature, writing, server)
    used = read_template(template) if template else PROFILE
    config = config_of(feature.dataset, feature.data_path)
    check_files(config)
    histories = training_histories(create_dataset(config).build()[0])
    histories = dict(list(histories.items())[: history.users])
    _, items = side_rows(feature.dataset, "item", feature.data_path)
    cutoff = history.cutoff
    prompts, cutoffs = profile_prompts(
        histories,
        items,
        own_cutoffs(histories, history.share or SHARE) if cutoff is None else cutoff,
        template=used,
        line=history.line,
        max_items=history.max_items,
    )
    _write(feature, prompts, cutoffs, writing, server)
    _say(feature, "user")


def write_descriptions(
    feature: FeatureOfData,
    writing: Writing,
    server: WritingServer,
    template: str = "",
    items: int | None = None,
) -> None:
    """Have each item described from its fields.

    Args:
        feature: Where to: features_dir/dataset/name/texts.parquet.
        writing: What writes.
        server: How one is asked.
        template: File of the prompt, with {fields} or fields by their names.
        items: Only so many items, for a trial.
    """
    at_least(1, items=items)
    _check(feature, writing, server)
    used = read_template(template) if template else DESCRIPTION
    _, rows = side_rows(feature.dataset, "item", feature.data_path)
    prompts = description_prompts(dict(list(rows.items())[:items]), template=used)
    _write(feature, prompts, None, writing, server)
    _say(feature, "item")


def _check(feature: FeatureOfData, writing: Writing, server: WritingServer) -> None:
    if not writing.writer.startswith(SERVER):
        refuse_given(server, "a server (--writer=endpoint:MODEL)")
        check_model_name("--writer", writing.writer)
    check_place(feature)


def _write(
    feature: FeatureOfData,
    prompts: Mapping[str, str | None],
    cutoffs: Mapping[str, float] | None,
    writing: Writing,
    server: WritingServer,
) -> None:
    folder, confirm = feature.folder, None  # a name that cannot be shows before a model is loaded
    writer: Writer
    if writing.writer.startswith(SERVER):
        settings = {"max_tokens": writing.max_new_tokens, "temperature": 0}
        model = writing.writer.removeprefix(SERVER)
        writer = EndpointWriter(server.endpoint(), model, settings)
        confirm = server.confirm(writing.max_new_tokens)
    else:
        writer = LocalWriter(writing.writer, max_new_tokens=writing.max_new_tokens)
    texts = write_texts(folder, prompts, writer, cutoffs=cutoffs, confirm=confirm).texts
    n_written = sum(text is not None for text in texts.values())
    print(f"{folder / TEXTS}: {n_written} of {len(texts)} texts")


def _say(feature: FeatureOfData, of: str) -> None:
    print(encode_command(feature, of))
