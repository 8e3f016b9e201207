"""``features text``: texts through an encoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recbole_ext.feature_commands.common import check_place, say, side_rows, subject_of
from recbole_ext.feature_commands.options import (
    SERVER,
    FeatureOfData,
    Kept,
    Server,
    at_least,
    refuse_given,
)
from recbole_ext.features.build import Building, build
from recbole_ext.features.embeddings import EndpointEncoder
from recbole_ext.features.encoded import Encoder
from recbole_ext.features.hub import check_model_name
from recbole_ext.features.profiles import import_texts
from recbole_ext.features.text_encoders import MINILM, SentenceEncoder
from recbole_ext.features.texts import read_texts, render
from recbole_ext.features.writing import Texts
from recbole_ext.types import UserError


@dataclass(frozen=True)
class Contents:
    """Where the texts are.

    Attributes:
        template: Text of an item made of its fields, as "{movie_title} ({release_year}). {genre}".
        texts: Instead a file token -> text: .json, .jsonl, .csv, .tsv or .parquet.
    """

    template: str = ""
    texts: str = ""

    def __post_init__(self) -> None:
        if bool(self.template) == bool(self.texts):
            raise UserError(
                'features text needs --template="{title}", of fields of the dataset, or '
                "--texts=FILE; give one of them"
            )


@dataclass(frozen=True)
class Origin:
    """When texts on users were written.

    Attributes:
        cutoff: Time up to which interactions went into a file of texts on users.
        i_know_it_may_leak: Take texts on users though nobody knows; the manifest says so.
    """

    cutoff: float | None = None
    i_know_it_may_leak: bool = False

    def __post_init__(self) -> None:
        if self.i_know_it_may_leak and self.cutoff is not None:
            raise UserError("--cutoff and --i_know_it_may_leak exclude each other; give one")


@dataclass(frozen=True)
class Local:
    """What an encoder on this machine reads and keeps.

    Attributes:
        tokens: Keep vectors of so many first tokens of a text, and not one for all of it.
        max_length: Tokens of a text that are read; the encoder's own limit by default.
        revision: Of a hub id.
        device: auto, cpu or cuda.
    """

    tokens: int = 0
    max_length: int | None = None
    revision: str | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        at_least(0, tokens=self.tokens)
        at_least(1, max_length=self.max_length)


def encode_texts(
    feature: FeatureOfData,
    contents: Contents,
    origin: Origin,
    local: Local,
    server: Server,
    kept: Kept,
    encoder: str = MINILM,
    batch_size: int = 64,
) -> None:
    """Encode texts: the fields of a dataset's .item (or .user) file, or those of a file of texts.

    Args:
        feature: Where to.
        contents: Of what.
        origin: Of texts on users.
        local: How an encoder on this machine works.
        server: How one elsewhere is asked.
        kept: What is kept.
        encoder: minilm, a hub id, a folder with a saved sentence-transformers model, or
            endpoint:MODEL for a server of OpenAI's protocol (OPENAI_BASE_URL, OPENAI_API_KEY).
        batch_size: Texts that are encoded together.
    """
    at_least(1, batch_size=batch_size)
    folder = feature.folder  # a name that cannot be shows before an encoder is loaded
    is_served = encoder.startswith(SERVER)
    if is_served:
        refuse_given(local, "an encoder on this machine, not for a server")
    else:
        refuse_given(server, "a server (--encoder=endpoint:MODEL)")
        check_model_name("--encoder", encoder)
    check_place(feature)
    read = _read(feature, contents, origin, kept.of)
    made = (
        _of_server(server, encoder, batch_size)
        if is_served
        else _of_this_machine(encoder, local, contents.template, batch_size)
    )
    is_told = kept.of == "user" and bool(contents.texts)
    store = build(
        folder,
        read.texts,
        made,
        subject_of(feature, "text", kept.of, is_told, read),
        Building(kept.dtype, confirm=server.confirm() if is_served else None),
        read.cutoffs,
    )
    say(store)


def _read(feature: FeatureOfData, contents: Contents, origin: Origin, of: str) -> Texts:
    template, texts = contents.template, contents.texts
    note = f"texts of {Path(texts).name}"
    if of == "user" and texts:
        read = import_texts(texts, origin.cutoff, origin.i_know_it_may_leak)
        return replace(read, notes=(note, *read.notes))
    refuse_given(origin, "texts on users from a file (--texts=FILE --of=user)")
    if texts:
        return Texts(read_texts(texts), notes=(note,))
    path, rows = side_rows(feature.dataset, of, feature.data_path)
    return Texts(render(rows, template, path))


def _of_server(server: Server, encoder: str, request_size: int) -> Encoder:
    model = encoder.removeprefix(SERVER)
    if not model:
        raise UserError(f"--encoder={SERVER} names no model; write --encoder={SERVER}MODEL")
    return EndpointEncoder(server.endpoint(), model, request_size=request_size)


def _of_this_machine(encoder: str, local: Local, template: str, batch_size: int) -> Encoder:
    if not encoder:
        raise UserError(f"--encoder is empty; name {MINILM}, a hub id or a folder")
    if local.revision and (encoder == MINILM or Path(encoder).is_dir()):
        raise UserError(
            f"--revision is of a hub id, and would do nothing for '{encoder}'; leave it out"
        )
    settings: dict[str, Any] = {"template": template} if template else {}
    return SentenceEncoder(encoder, settings, batch_size=batch_size, **vars(local))
