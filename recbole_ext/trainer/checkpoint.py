"""Checkpoints: plain dicts, written atomically, loaded with ``weights_only=True``."""

from __future__ import annotations

import errno
import os
import pickle
import random
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from recbole_ext.atomic import replacing
from recbole_ext.types import UserError

FORMAT = "recbole_ext/1"
_LEAST_BYTES = 1 << 16
"""With less than this left a disk is full: torch writes in pieces."""
_DAMAGED = (pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def write_checkpoint(path: Path, payload: dict[str, Any]) -> None:
    """Write a checkpoint: the file is the old one or the whole new one, whatever happens.

    Args:
        path: The file; a temporary sibling is written and renamed to it.
        payload: Tensors, numpy and scipy arrays, numbers, strings, and dicts, lists, tuples of
            them.

    Raises:
        UserError: The disk is full or the folder cannot be written; what was there is untouched.
    """
    content = {"format": FORMAT, **pack(payload)}
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        try:
            torch.save(content, stream)
        except RuntimeError as error:  # torch's zip writer: a short write is "unexpected pos"
            if shutil.disk_usage(path.parent).free < _LEAST_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise OSError(str(error).splitlines()[0]) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint that :func:`write_checkpoint` wrote, its tensors on the CPU.

    Whoever loads them puts them where they belong; an optimizer leaves its step counts on the
    CPU, and would wait for the device at every step if they were there.

    Raises:
        UserError: The file is missing, damaged, or not one of ours.
    """
    try:
        with open(path, "rb") as stream:
            if zipfile.ZipFile(stream).testzip():  # torch does not compare the checksums
                raise zipfile.BadZipFile
            stream.seek(0)
            payload = torch.load(stream, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {path}: {error.strerror or error}") from None
    except (RuntimeError, EOFError, ValueError, LookupError, *_DAMAGED):
        raise UserError(
            f"{path} is damaged, cut short, or no checkpoint of this package; "
            "use another one (best.pt and last.pt stand in every run folder)"
        ) from None
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise UserError(
            f"{path} is no checkpoint of this package (format {FORMAT}); "
            "a run folder's best.pt or last.pt is meant here"
        )
    return unpack(payload)


def check_identity(
    payload: Mapping[str, Any], path: Path, model: str, vocabulary: Mapping[str, str]
) -> None:
    """Refuse a checkpoint of another model, or of another user or item vocabulary.

    Raises:
        UserError: Naming the file and both sides.
    """
    if payload["model"] != model:
        raise UserError(
            f"{path} is a checkpoint of {payload['model']}, not of {model}; "
            f"give --model={payload['model']}"
        )
    if "vocabulary" not in payload:
        raise UserError(
            f"{path} does not say on which users and items it was trained; "
            "a run folder's best.pt or last.pt is meant here"
        )
    for kind, value in vocabulary.items():
        if payload["vocabulary"].get(kind) != value:
            raise UserError(
                f"{path} was trained on other {kind} (dataset '{payload['dataset']}'): the ids "
                "would mean something else; use the dataset, filters and files it was trained with"
            )


def load_weights(model: Any, payload: Mapping[str, Any], path: Path) -> None:
    """Load the weights and other parameters of a checkpoint into a model.

    Raises:
        UserError: They do not fit, naming the first difference.
    """
    try:
        model.load_state_dict(payload["state_dict"])
    except RuntimeError as error:
        raise UserError(
            f"{path} does not fit this model: {str(error).splitlines()[-1].strip()}; "
            "use the settings it was trained with (config.yaml beside it)"
        ) from None
    device = getattr(model, "device", "cpu")  # RecBole's models know where their tensors belong
    model.load_other_parameter(_on(payload["other_parameter"], device))


def _on(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, dict):
        return {key: _on(entry, device) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_on(entry, device) for entry in value)
    return value.to(device) if isinstance(value, torch.Tensor) else value


def pack(value: Any) -> Any:
    """Turn arrays into tensors and numpy scalars into numbers: only data is pickled."""
    if sp.issparse(value):  # before mappings: a dok_matrix is one
        csr = value.tocsr()
        return {
            "__sparse__": value.format,
            "is_array": isinstance(value, sp.sparray),
            "data": torch.from_numpy(csr.data),
            "indices": torch.from_numpy(csr.indices),
            "indptr": torch.from_numpy(csr.indptr),
            "shape": list(csr.shape),
        }
    if isinstance(value, Mapping):
        return {pack(key): pack(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return (
            type(value)(map(pack, value))
            if type(value) in (list, tuple)
            else [pack(entry) for entry in value]
        )
    if isinstance(value, np.ndarray):
        return {"__numpy__": torch.from_numpy(value.copy(order="C"))}
    if isinstance(value, np.generic):
        return value.item()
    return value


def unpack(value: Any) -> Any:
    """Invert :func:`pack`."""
    if isinstance(value, dict):
        if "__numpy__" in value:
            return value["__numpy__"].cpu().numpy()
        if "__sparse__" in value:
            parts = (
                value["data"].cpu().numpy(),
                value["indices"].cpu().numpy(),
                value["indptr"].cpu().numpy(),
            )
            build = sp.csr_array if value["is_array"] else sp.csr_matrix
            return build(parts, shape=tuple(value["shape"])).asformat(value["__sparse__"])
        return {key: unpack(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(unpack, value))
    return value


def other_parameters(model: Any) -> dict[str, Any]:
    """Return what RecBole's models keep beside their weights, without their own parts.

    Some name a sub-module (``feature_embed_layer``), whose weights are the model's already.
    """
    other = model.other_parameter()
    return {name: value for name, value in other.items() if not isinstance(value, nn.Module)}


def rng_state() -> dict[str, Any]:
    """Return the states of Python's, numpy's and torch's generators."""
    state = {
        "python": random.getstate(),
        "numpy": list(np.random.get_state()),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Set the generators to what :func:`rng_state` gave."""
    random.setstate(state["python"])
    np.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        for device, saved in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
            torch.cuda.set_rng_state(saved.cpu(), device)  # this machine may have fewer


def loader_generators(loader: Any) -> dict[str, torch.Generator]:
    """Return the generators of a loader by name; a knowledge loader has two loaders inside."""
    parts = {
        "": loader,
        "general.": getattr(loader, "general_dataloader", None),
        "kg.": getattr(loader, "kg_dataloader", None),
    }
    return {
        f"{name}generator": part.generator
        for name, part in parts.items()
        if getattr(part, "generator", None)
    }
