"""``features text``: texts through an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole_ext import __version__
from recbole_ext.feature_commands.common import OF, ask, one_of, say, side_rows
from recbole_ext.features.build import Subject, build
from recbole_ext.features.encoded import Encoder
from recbole_ext.features.cost import confirming
from recbole_ext.features.embeddings import EndpointEncoder
from recbole_ext.features.endpoint import Endpoint
from recbole_ext.features.profiles import import_texts
from recbole_ext.features.text_encoders import MINILM, SentenceEncoder
from recbole_ext.features.texts import read_texts, render
from recbole_ext.features.writing import Texts
from recbole_ext.types import UserError

SERVER = "endpoint:"
"""Before the name of a model that a server has."""


def encode_texts(
    dataset: str,
    name: str,
    template: str = "",
    texts: str = "",
    of: str = "item",
    encoder: str = MINILM,
    cutoff: float | None = None,
    i_know_it_may_leak: bool = False,
    tokens: int = 0,
    max_length: int | None = None,
    revision: str | None = None,
    device: str | None = None,
    batch_size: int = 64,
    dtype: str = "float16",
    requests_per_minute: float | None = None,
    price_per_million: float | None = None,
    yes: bool = False,
    data_path: str | None = None,
    features_dir: str = "features",
) -> None:
    """Encode texts: the fields of a dataset's .item (or .user) file, or those of a file of texts.

    Args:
        dataset: Dataset.
        name: Of the feature.
        template: Text of an item made of its fields, as "{movie_title} ({release_year}). {genre}".
        texts: Instead a file token -> text: .json, .jsonl, .csv, .tsv or .parquet.
        of: item or user.
        encoder: minilm, a hub id, a folder with a saved sentence-transformers model, or
            endpoint:MODEL for a server of OpenAI's protocol (OPENAI_BASE_URL, OPENAI_API_KEY).
        cutoff: Time up to which interactions went into a file of texts on users.
        i_know_it_may_leak: Take texts on users though nobody knows; the manifest says so.
        tokens: Keep vectors of so many first tokens of a text, and not one for all of it.
        max_length: Tokens of a text that are read; the encoder's own limit by default.
        revision: Of a hub id.
        device: cpu or cuda; a GPU is taken where there is one.
        batch_size: Texts that are encoded together.
        dtype: float16 or float32.
        requests_per_minute: Limit for a server.
        price_per_million: Tokens; for the estimate before a server is asked.
        yes: Do not ask before a server is.
        data_path: Folder of the datasets.
        features_dir: Where to: features_dir/dataset/name.
    """
    one_of("of", of, OF)
    if bool(template) == bool(texts):
        raise UserError(
            'features text needs --template="{title}", of fields of the dataset, or --texts=FILE'
        )
    if template:
        path, rows = side_rows(dataset, of, data_path)
        read = Texts(render(rows, template, path))
    elif of == "user":
        read = import_texts(texts, cutoff, i_know_it_may_leak)
    else:
        read = Texts(read_texts(texts))
    settings: dict[str, Any] = {"template": template} if template else {}
    made: Encoder
    if encoder.startswith(SERVER):
        server = Endpoint(requests_per_minute=requests_per_minute)
        made = EndpointEncoder(server, encoder.removeprefix(SERVER), request_size=batch_size)
    else:
        made = SentenceEncoder(
            encoder,
            settings,
            tokens=tokens,
            max_length=max_length,
            revision=revision,
            device=device,
            batch_size=batch_size,
        )
    notes = (f"texts of {Path(texts).name}",) if texts else ()
    store = build(
        Path(features_dir) / dataset / name,
        read.texts,
        made,
        Subject(name, "text", of, dataset, cutoff=read.cutoff, notes=(*notes, *read.notes)),
        package=__version__,
        dtype=dtype,
        cutoffs=read.cutoffs,
        confirm=confirming(ask(yes), price_per_million=price_per_million)
        if encoder.startswith(SERVER)
        else None,
    )
    say(store)
