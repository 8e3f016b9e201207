"""Loading a pretrained encoder, loudly: what does not fit is an error that names it.

Taken are a run folder, a ``best.pt`` of this package, and a checkpoint of the original DuoRec
repository (or of RecBole's SASRec, whose parameters have the same names). Such a foreign file
pickles objects of its own; of them nothing is built or run, only the tensors are read.
"""

from __future__ import annotations

import collections
import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from recbole_ext.modules.evaluating import evaluating
from recbole_ext.modules.transformer import SASEncoder, encoder_keys
from recbole_ext.types import UserError

OURS = "recbole_ext/1"
PREFIX = "encoder."
SHAPELESS = ("n_heads", "hidden_act", "layer_norm_eps")
"""Settings of the encoder that change its output and no shape."""
ENCODER = ("hidden_size", "n_layers", "inner_size", *SHAPELESS)
"""Settings that say, with the shapes of the weights, how to build the encoder."""
SPLIT = ("split", "order", "group_by")
"""Entries of ``eval_args`` that say which rows are trained on."""
FILTERS = ("user_inter_num_interval", "item_inter_num_interval", "val_interval", "rm_dup_inter")
"""Settings that say the same by leaving interactions out."""
ORDER = ("TIME_FIELD", "benchmark_filename")
"""Settings that say the same by what interactions are ordered or cut by."""


@dataclass
class WarmStartReport:
    """Which parameters of a file went where.

    Attributes:
        path: The file.
        matched: Encoder parameters that were loaded, under our names.
        unused: Parameters of the file that this model has no place for.
        notes: What could not be checked.
    """

    path: Path
    matched: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return the report in a few lines."""
        lines = [f"warm start from {self.path}: {len(self.matched)} encoder parameters loaded"]
        lines += [f"  matched  {name}" for name in self.matched]
        lines += [f"  unused   {name}" for name in self.unused]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def load_warm_start(
    encoder: nn.Module,
    path: str | Path,
    item_hash: str,
    settings: Mapping[str, Any],
    fingerprint: str | None = None,
) -> WarmStartReport:
    """Load an encoder's weights from a file and check that every one of them arrived.

    Args:
        encoder: The encoder; all its parameters must be in the file.
        path: Run folder or checkpoint.
        item_hash: ``vocabulary_hash`` of the item tokens, to compare with the file's.
        settings: This run's settings; those that change the encoder's output and no shape, and
            those that say which rows are trained on, are compared with the file's.
        fingerprint: ``dataset_fingerprint`` of this run's data, to compare with the one in the
            ``result.json`` beside the file; ``None`` if it is not known.

    Raises:
        UserError: The file is missing or unreadable, has another item vocabulary, other
            interactions, another split, other encoder settings, or parameters that do not match;
            it names them.
    """
    file = _find(Path(path))
    payload = _read(file)
    report = WarmStartReport(file)
    is_ours, theirs = payload.get("format") == OURS, payload.get("settings") or {}
    if is_ours:
        _check_vocabulary(payload, file, item_hash)
        _check_settings(theirs, settings, file)
        _check_split(theirs, settings, file)
        _check_interactions(file.parent / "result.json", fingerprint, report)
    else:
        report.notes.append(
            "a foreign checkpoint does not say which item has which id; "
            "it must come from this very dataset, read in the same order and split alike"
        )
        unproven = ", ".join(f"{key} {settings[key]}" for key in SHAPELESS)
        report.notes.append(f"nor does it prove {unproven}: they must be what it was trained with")
    wanted = encoder.state_dict()
    found = _encoder_part(payload["state_dict"], report)
    _check_shapes(found, wanted, file)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UserError(
            f"pretrained_path: {file} lacks {_listing(missing)}; "
            "n_layers and the other encoder settings must be those it was trained with"
        )
    extra = [name for name in found if name not in wanted]
    if extra:
        raise UserError(
            f"pretrained_path: {file} has {_listing(extra)}, for which this encoder has no place; "
            "set n_layers to what it was trained with"
        )
    encoder.load_state_dict(found)
    _assert_arrived(encoder, found)
    if is_ours:
        _assert_states(encoder, found, theirs, report)
    report.matched = [PREFIX + name for name in found]
    return report


def _find(path: Path) -> Path:
    file = path / "best.pt" if path.is_dir() else path
    if not file.is_file():
        kind = "has no best.pt" if path.is_dir() else "does not exist"
        raise UserError(
            f"pretrained_path: {path} {kind}; give a run folder or a checkpoint, "
            "or leave it out to pretrain first (pretrain: auto)"
        )
    return file


def _read(file: Path) -> dict[str, Any]:
    try:
        payload = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # objects beside the tensors: a foreign file, or no checkpoint
        payload = _read_foreign(file)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile):
        payload = None
    state = payload.get("state_dict") if isinstance(payload, dict) else None
    if not isinstance(state, Mapping) or not any(isinstance(v, Tensor) for v in state.values()):
        raise UserError(
            f"pretrained_path: {file} is damaged or no checkpoint (it has no state_dict of "
            "tensors); give a run folder, its best.pt, or a checkpoint of the original DuoRec"
        )
    assert isinstance(payload, dict)
    return payload


def _read_foreign(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", pickle_module=_TENSORS_ONLY, weights_only=False)
    except Exception:  # noqa: BLE001 - a hostile or damaged pickle may raise anything
        return None


class _Nothing:
    """Stands in for every object of a foreign file that is no tensor: takes all, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Nothing:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass

    def add(self, value: Any) -> None:
        pass


class _TensorUnpickler(pickle.Unpickler):
    """Builds tensors and plain containers; any other name in the file becomes :class:`_Nothing`."""

    allowed = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
        ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
        ("torch", "Size"): torch.Size,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return an allowed function or type, else a stand-in."""
        return self.allowed.get((module, name), _Nothing)


_TENSORS_ONLY = SimpleNamespace(
    Unpickler=_TensorUnpickler,
    load=lambda stream, **options: _TensorUnpickler(stream, **options).load(),
    __name__="pickle",
)


def _encoder_part(state: Mapping[str, Any], report: WarmStartReport) -> dict[str, Tensor]:
    """Return the encoder's tensors under its own names; what else there is goes to ``unused``."""
    names = {str(name).removeprefix("module."): value for name, value in state.items()}
    if not any(name.startswith(PREFIX) for name in names):
        names = encoder_keys(names, PREFIX)
    found = {}
    for name, value in names.items():
        if name.startswith(PREFIX) and isinstance(value, Tensor):
            found[name.removeprefix(PREFIX)] = value
        else:
            report.unused.append(name)
    return found


def _check_vocabulary(payload: dict[str, Any], file: Path, item_hash: str) -> None:
    if payload.get("vocabulary", {}).get("items") != item_hash:
        raise UserError(
            f"pretrained_path: {file} was trained on other items (dataset "
            f"'{payload.get('dataset')}'): its ids mean something else here; "
            "use the same data and filters, or leave pretrained_path out"
        )


def _check_settings(theirs: Mapping[str, Any], ours: Mapping[str, Any], file: Path) -> None:
    for key in SHAPELESS:
        if key in theirs and theirs[key] != ours[key]:
            raise UserError(
                f"pretrained_path: {file} was trained with {key}: {theirs[key]}, "
                f"and this run has {key}: {ours[key]}; set {key} to {theirs[key]}"
            )


def _check_split(theirs: Mapping[str, Any], ours: Mapping[str, Any], file: Path) -> None:
    """Refuse an encoder that trained on other rows: this run's validation may be among them."""
    for key in ("eval_args", *FILTERS, *ORDER):
        if key not in theirs:
            continue
        their, our = theirs[key], ours[key]
        pairs = {key: (their, our)}
        if key == "eval_args":
            pairs = {f"{key}.{part}": (their.get(part), our.get(part)) for part in SPLIT}
            if our.get("order") == "RO":  # drawn with the seed
                pairs["seed"] = (theirs.get("seed"), ours.get("seed"))
        for name, (their, our) in pairs.items():
            if their != our:
                raise UserError(
                    f"pretrained_path: {file} was trained with {name}: {their}, and this run has "
                    f"{name}: {our}: it may have seen what is held out here; use the same data "
                    "and split, or leave pretrained_path out"
                )


def _check_interactions(result: Path, ours: str | None, report: WarmStartReport) -> None:
    """Refuse an encoder that trained on other interactions, or on these in another order."""
    try:
        theirs = json.loads(result.read_text(encoding="utf-8")).get("dataset_fingerprint")
    except FileNotFoundError:  # a run that was broken off, or a best.pt that was moved
        theirs = None
    except (OSError, ValueError, AttributeError):
        raise UserError(
            f"pretrained_path: {result} is damaged, so the data cannot be compared; give another "
            "run, or move its best.pt away from that file"
        ) from None
    if theirs is None or ours is None:
        report.notes.append(
            "no fingerprint to compare: that it trained on these very interactions, in the same "
            "order is unproven"
        )
    elif theirs != ours:
        raise UserError(
            f"pretrained_path: {report.path} was trained on other interactions, or on these in "
            f"another order ({result} has another dataset_fingerprint): it may have seen what is "
            "held out here; use the same files and filters, or leave pretrained_path out"
        )


def _check_shapes(found: dict[str, Tensor], wanted: dict[str, Tensor], file: Path) -> None:
    hints = {
        "item_embedding.weight": "items (the dataset and its filters) or hidden_size",
        "position_embedding.weight": "MAX_ITEM_LIST_LENGTH or hidden_size",
    }
    for name, value in found.items():
        if name in wanted and value.shape != wanted[name].shape:
            what = hints.get(name, "hidden_size or inner_size")
            raise UserError(
                f"pretrained_path: {file} has {name} of shape {tuple(value.shape)} where this "
                f"model has {tuple(wanted[name].shape)}: {what} differ"
            )


def _assert_arrived(encoder: nn.Module, found: dict[str, Tensor]) -> None:
    """Check that the encoder has the weights of the file, and not its initial ones."""
    for name, value in encoder.state_dict().items():
        if not torch.equal(value.cpu(), found[name].to(value.dtype)):
            raise AssertionError(f"{PREFIX}{name} differs from what was loaded")


@torch.no_grad()
def _assert_states(
    encoder: nn.Module, found: dict[str, Tensor], theirs: Mapping[str, Any], report: WarmStartReport
) -> None:
    """Check that some histories have the states of the encoder that the file itself describes."""
    unsaid = [key for key in ENCODER if key not in theirs]
    if unsaid:
        report.notes.append(f"the file does not say {', '.join(unsaid)}: states are not compared")
        return
    n_items, limit = (len(found[f"{kind}_embedding.weight"]) for kind in ("item", "position"))
    with torch.random.fork_rng(devices=[]):  # its initial weights are nobody's random numbers
        source = SASEncoder(n_items=n_items, max_length=limit, **{k: theirs[k] for k in ENCODER})
    source.load_state_dict(found)
    lengths = torch.tensor([1, (limit + 1) // 2, limit])  # [3]
    place = torch.arange(limit)  # [L]
    item_seq = 1 + (place + 7 * torch.arange(3)[:, None]) % (n_items - 1)  # [3, L]
    item_seq = item_seq.where(place < lengths[:, None], 0)  # [3, L]
    device = encoder.state_dict()["item_embedding.weight"].device
    with evaluating(encoder):
        states = encoder(item_seq.to(device), lengths.to(device)).cpu()  # [3, D]
    if not torch.allclose(states, source.eval()(item_seq, lengths), rtol=1e-4, atol=1e-5):
        raise AssertionError(f"the encoder gives other states than the one of {report.path}")


def _listing(names: list[str]) -> str:
    shown = ", ".join(PREFIX + name for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
