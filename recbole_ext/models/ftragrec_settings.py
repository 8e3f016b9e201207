"""Checks FTRagRec's settings before anything is built, and freezes by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import nn

from recbole_ext.index.build import KINDS
from recbole_ext.models.refused_values import check_words
from recbole_ext.modules.memory import POLICIES
from recbole_ext.modules.retrieval_mix import KL_TARGETS, MIXES
from recbole_ext.types import UserError, suggest

CHOICES = {
    "mix": MIXES,
    "kl_target": KL_TARGETS,
    "exclude": POLICIES,
    "neighbours": ("nearest", "random"),
    "calibrate": ("valid", "none"),
    "index": KINDS,
    "pretrain": ("auto", "none"),
}
"""Settings that take one of a few words."""

RANGES: dict[str, tuple[float, float]] = {
    "alpha": (0, 0.99),
    "train_alpha": (0, 0.99),
    "smoothing": (1e-6, 1e3),
    "retriever_layers": (0, 8),
    "retriever_inner_size": (1, 1e6),
    "n_probe": (16, 1e6),
    "retriever_temperature": (0.01, 5),
    "enhanced_rec_weight": (0, 1e6),
    "kl_small_weight": (0, 1e6),
    "kl_temperature": (0.01, 1e6),
    "quality_threshold": (-1, 1),
    "quality_percentile": (0, 99),
    "retriever_update_interval": (1, 1e9),
    "memory_limit_mib": (0, 1e9),
    "calibrate_users": (1, 1e9),
    "calibrate_alpha": (0, 0.99),
    "calibrate_top_k": (1, 1e9),
    "calibrate_temperature": (0.01, 5),
    "calibrate_smoothing": (1e-6, 1e3),
}
"""Settings and the range of their values, or of each value of a list."""
MOST_EXPONENT = 100.0
"""Range of ``alpha`` and ``calibrate_alpha`` where they are an exponent and not a share."""
OPTIONAL = (
    "alpha",
    "train_alpha",
    "calibrate_alpha",
    "calibrate_temperature",
    "retriever_update_interval",
    "memory_limit_mib",
)
"""Settings that may be left out: the model takes what fits the others, or has no limit."""

SHARE = 0.35
"""``train_alpha``, and ``alpha`` where it is a share."""
EXPONENT = 2.0
"""``alpha`` of the log-linear mix."""
SHARES = {"alpha": (0, 0.1, 0.2, 0.35, 0.5, 0.65), "temperature": (0.1, 0.2, 0.3, 0.4, 0.6)}
EXPONENTS = {"alpha": (0, 1, 2, 4, 8), "temperature": (0.02, 0.05, 0.1)}
"""What calibration tries, by the sort of alpha."""


NEEDED_CALLBACKS = {
    "FaissRefresh": "- FaissRefresh: {before_valid: False}",
    "Calibrate": "- Calibrate",
}
"""Callbacks that a run needs, in their order, and the line that adds each."""
NEEDED_FOR = {
    "FaissRefresh": "training would keep the neighbours of the untrained retriever",
    "Calibrate": "calibrate: valid would choose nothing",
}
ITEM_VECTORS = "encoder.item_embedding.weight"
"""What an encoder that was never trained must not keep: all else is made of it."""


def alpha_of(config: Any) -> float:
    """Return ``alpha``, or what fits the mix."""
    if config["alpha"] is not None:
        return config["alpha"]
    return EXPONENT if config["mix"] == "log_linear" else SHARE


def train_alpha_of(config: Any) -> float:
    """Return ``train_alpha``, or what fits: ``alpha`` where that is a share; none without any."""
    if config["train_alpha"] is not None:
        return config["train_alpha"]
    return alpha_of(config) and (SHARE if config["mix"] == "log_linear" else alpha_of(config))


def calibration_grid(config: Any) -> list[Sequence[Any]]:
    """Return what calibration tries: alphas, numbers of neighbours, temperatures, smoothings."""
    is_exponent = config["mix"] == "log_linear"
    fitting: dict[str, Any] = {
        "top_k": None,
        **(EXPONENTS if is_exponent else SHARES),
        "smoothing": None,
    }
    order = ("alpha", "top_k", "temperature", "smoothing")
    found = [config[f"calibrate_{of}"] or fitting[of] for of in order]
    return found if is_exponent else [*found[:3], found[3][:1]]


def check_values(config: Any, n_rows: int) -> None:
    """Refuse values that cannot be meant.

    Args:
        config: The run's settings.
        n_rows: Rows of the memory.

    Raises:
        UserError: Naming the key, the value and what it takes.
    """
    check_words(config, CHOICES)
    for key, (low, high) in RANGES.items():
        if key in OPTIONAL and config[key] is None:
            continue
        if key in ("alpha", "calibrate_alpha") and config["mix"] == "log_linear":
            high = MOST_EXPONENT
        values = config[key] if isinstance(config[key], (list, tuple)) else [config[key]]
        if not values:
            raise UserError(f"{key}: the list is empty; give one value or more")
        if not all(_is_between(value, low, high) for value in values):
            raise UserError(f"{key}: {config[key]} is not between {low:g} and {high:g}")
    if not all(isinstance(value, int) for value in config["calibrate_top_k"]):
        raise UserError(f"calibrate_top_k: {config['calibrate_top_k']} must be whole numbers")
    if not 1 <= config["top_k"] <= n_rows:
        raise UserError(
            f"top_k: {config['top_k']} neighbours cannot come from a memory of {n_rows} rows; "
            f"give 1 to {n_rows}"
        )
    share = "alpha" if config["train_alpha"] is None else "train_alpha"
    if config["mix"] == "gate" and not train_alpha_of(config):
        raise UserError(
            f"mix: gate starts at {share} and learns from there, so {share} must be above 0"
        )
    if config["mix"] == "gate" and share == "train_alpha" and config["alpha"] is not None:
        raise UserError("mix: gate has one alpha, which it learns; give alpha or train_alpha")
    if config["calibrate"] == "valid" and not train_alpha_of(config):
        raise UserError(
            f"{share}: 0 leaves the retriever nothing to learn, so that there is nothing to choose "
            f"among; set calibrate: none for the encoder alone, or {share} above 0"
        )


def check_run(config: Any) -> None:
    """Refuse a run that lacks what its settings need: callbacks, a folder, a warm start.

    Args:
        config: The run's settings.

    Raises:
        UserError: Naming the key and what to write.
    """
    for name, line in NEEDED_CALLBACKS.items():
        is_needed = name != "Calibrate" or config["calibrate"] == "valid"
        if is_needed and name not in {_callback_name(one) for one in config["callbacks"] or ()}:
            without = ", or set calibrate: none" if name == "Calibrate" else ""
            raise UserError(
                f"callbacks: the list replaces FTRagRec's own and lacks {name}, without which "
                f"{NEEDED_FOR[name]}; add the line '{line}' to it{without}"
            )
    if config["memory_dir"] and not Path(config["memory_dir"]).is_dir():
        raise UserError(
            f"memory_dir: there is no folder '{config['memory_dir']}'; create it or name another"
        )
    is_cold = config["pretrain"] == "none" and not config["pretrained_path"]
    if is_cold and any(fnmatchcase(ITEM_VECTORS, word) for word in _patterns(config["freeze"])):
        raise UserError(
            "pretrain: none without pretrained_path starts from random item vectors, and "
            f"freeze: {config['freeze']} keeps them so; give pretrained_path, or set "
            "pretrain: auto or freeze: none"
        )


def _callback_name(spec: Any) -> str:
    """Return the class name in an entry of ``callbacks``: Name, module:Name, or {Name: ...}."""
    name = next(iter(spec), "") if isinstance(spec, dict) else spec
    return str(name).rpartition(":")[2]


def _patterns(freeze: str | Iterable[str]) -> list[str]:
    """Return the name patterns that ``freeze`` stands for."""
    words = [freeze] if isinstance(freeze, str) else list(freeze or ())
    if not words or not all(isinstance(word, str) for word in words):
        raise UserError(f"freeze: {freeze} must be one or more words (all, none or names)")
    return {"all": ["encoder.*"], "none": []}.get(words[0] if len(words) == 1 else "", words)


def freeze_parameters(model: nn.Module, freeze: str | Iterable[str]) -> None:
    """Freeze the encoder or the parameters that match patterns.

    Args:
        model: The model.
        freeze: ``all`` (the encoder), ``none``, or patterns such as ``encoder.LayerNorm.*``.

    Raises:
        UserError: A pattern matches nothing, or there is none.
    """
    patterns = _patterns(freeze)
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        matched = [name for name in names if fnmatchcase(name, pattern)]
        if not matched:
            near = suggest(pattern, [f"{name}.*" for name, _ in model.named_modules() if name])
            raise UserError(f"freeze: '{pattern}' matches no parameter (all, none or names){near}")
        for name in matched:
            model.get_parameter(name).requires_grad_(False)


def _is_between(value: Any, low: float, high: float) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and low <= value <= high
