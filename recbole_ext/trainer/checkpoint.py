"""Checkpoints: plain dicts, written atomically, loaded with ``weights_only=True``."""

from __future__ import annotations

import os
import pickle
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from recbole_ext.types import UserError

FORMAT = "recbole_ext/1"


def write_checkpoint(path: Path, payload: dict[str, Any]) -> None:
    """Write a checkpoint: the file is the old one or the whole new one, whatever happens.

    Args:
        path: The file; a temporary sibling is written, synced to disk and renamed to it.
        payload: Tensors, numpy and scipy arrays, numbers, strings, and dicts, lists, tuples of
            them.

    Raises:
        UserError: The disk is full or the folder cannot be written; what was there is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            torch.save({"format": FORMAT, **pack(payload)}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(
            f"cannot write {path}: {reason}; free space or choose another --output_dir "
            "(what was there before is untouched)"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)  # after Ctrl-C too


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint that :func:`write_checkpoint` wrote.

    Raises:
        UserError: The file is missing, damaged, or not one of ours.
    """
    try:
        with open(path, "rb") as stream:
            payload = torch.load(stream, map_location=device, weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {path}: {error.strerror or error}") from None
    except (
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
    ):
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
    model.load_other_parameter(payload["other_parameter"])


def pack(value: Any) -> Any:
    """Turn arrays into tensors and numpy scalars into numbers: only data is pickled."""
    if isinstance(value, Mapping):
        return {key: pack(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return (
            type(value)(map(pack, value))
            if type(value) in (list, tuple)
            else [pack(entry) for entry in value]
        )
    if isinstance(value, np.ndarray):
        return {"__numpy__": torch.from_numpy(np.ascontiguousarray(value))}
    if isinstance(value, np.generic):
        return value.item()
    if sp.issparse(value):
        csr = value.tocsr()
        return {
            "__sparse__": value.format,
            "data": torch.from_numpy(csr.data),
            "indices": torch.from_numpy(csr.indices),
            "indptr": torch.from_numpy(csr.indptr),
            "shape": list(csr.shape),
        }
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
            return sp.csr_matrix(parts, shape=tuple(value["shape"])).asformat(value["__sparse__"])
        return {key: unpack(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(unpack, value))
    return value


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
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])


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
