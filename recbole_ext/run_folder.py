"""The folder of a run: where it is, what is in it; each file is written whole or not at all."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml

from recbole_ext.atomic import replacing
from recbole_ext.paths import PACKAGE
from recbole_ext.types import UserError

PLAN = "plan.json"
"""By which the folder of a comparison is known."""
WRITTEN = ("result.json", "metrics.jsonl", "best.pt", "last.pt", "per_user.parquet")
"""What a run writes beside ``config.yaml``, by which a run is known."""
_LEAST_BYTES = 1 << 16
_LIBRARIES = (
    "recbole",
    "torch",
    "numpy",
    "pandas",
    "scipy",
    "scikit-learn",
    "faiss-cpu",
    "recbole-ext",
)
_ANSI = re.compile(r"\x1B(?:[@-Z\\-_]|\[[0-?]*[ -/]*[@-~])")


def make_folder(output_dir: str | Path | None, model: str, dataset: str) -> Path:
    """Create a run folder: ``output_dir``, or ``runs/<model>-<dataset>-<time>-<pid>``.

    Raises:
        UserError: It cannot be created, or it already holds a run.
    """
    default = f"runs/{model}-{dataset}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    folder = Path(output_dir or default)
    if (folder / "config.yaml").exists():
        raise UserError(
            f"{folder} already holds a run; continue it with --resume={folder}, "
            "or name another --output_dir"
        )
    if (folder / PLAN).exists():
        raise UserError(f"{folder} holds a comparison ({PLAN}); name another --output_dir")
    taken = [name for name in WRITTEN if (folder / name).exists()]
    if taken:
        raise UserError(
            f"{folder} has a {taken[0]} that is of no run, and that a run would overwrite; name "
            "another --output_dir"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        try:
            probe.write_bytes(bytes(_LEAST_BYTES))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write into the folder {folder}: {error.strerror}; choose another --output_dir"
        ) from None
    return folder


def clear_unused(folder: Path, there: Container[str]) -> None:
    """Take away what a run that never finished an epoch left.

    Args:
        folder: The run folder.
        there: Names that were in it before the run; they stay.
    """
    if any((folder / name).exists() for name in ("metrics.jsonl", "best.pt", "last.pt")):
        return
    if "tensorboard" not in there:
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    for name in ("train.log", ".lock", "config.yaml"):  # last, what the folder is known by
        if name not in there:
            (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # it holds something else
        folder.rmdir()


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically.

    Raises:
        UserError: The disk is full or the folder cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_config(folder: Path, resolved: dict[str, Any]) -> None:
    """Write ``config.yaml``, every setting after merging; ``--config_files`` takes it again."""
    text = yaml.safe_dump(resolved, sort_keys=True, allow_unicode=True, default_flow_style=None)
    write_text(folder / "config.yaml", text)


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Write ``result.json`` with plain floats; what is not a number becomes null."""
    write_text(folder / "result.json", json.dumps(plain(result), indent=2) + "\n")


def plain(value: Any) -> Any:
    """Return a value as JSON knows it: numpy scalars as numbers, NaN and infinities as null."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def versions() -> dict[str, str]:
    """Return Python's version and those of the libraries that results depend on."""
    found = {"python": sys.version.split()[0]}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def revision() -> str | None:
    """Return the git revision of this checkout, or ``None`` in an installation."""
    if not (PACKAGE.parent / ".git").exists():
        return None
    command = ["git", "-C", str(PACKAGE.parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


class Phases:
    """Seconds and peak memory of the phases of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak_memory_gib: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure what happens inside, under ``name``."""
        _reset_peak()
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
            self.peak_memory_gib[name] = max(self.peak_memory_gib.get(name, 0.0), _peak_gib())
            if torch.cuda.is_available():
                gpu = torch.cuda.max_memory_allocated() / 2**30
                self.peak_memory_gib[f"{name}_gpu"] = max(
                    self.peak_memory_gib.get(f"{name}_gpu", 0.0), gpu
                )


def start_logging(folder: Path, level: str | None) -> logging.Logger:
    """Send the root logger, which RecBole writes to, to the terminal and to ``train.log``."""
    stop_logging()
    logger = logging.getLogger()
    try:
        handlers: list[logging.Handler] = [_File(folder / "train.log", encoding="utf-8")]
    except OSError as error:
        raise UserError(f"cannot write {folder / 'train.log'}: {error.strerror}") from None
    handlers.append(logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.setFormatter(
            _PlainFormatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")
        )
        handler.of_a_run = True  # type: ignore[attr-defined]
        logger.addHandler(handler)
    logger.setLevel(getattr(logging, str(level or "INFO").upper(), logging.INFO))
    for noisy in ("matplotlib", "PIL", "faiss", "h5py"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return logger


def stop_logging() -> None:
    """Take back what :func:`start_logging` set up."""
    logger = logging.getLogger()
    for handler in list(logger.handlers):
        if getattr(handler, "of_a_run", False):
            logger.removeHandler(handler)
            handler.close()


class _File(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Raise what went wrong; logging would print a traceback and go on."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            raise error
        super().handleError(record)


class _PlainFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _ANSI.sub("", super().format(record))


def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: start the high-water mark anew
    except OSError:
        pass
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak_gib() -> float:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 2**20
    except OSError:
        pass
    import resource

    unit = 2**30 if sys.platform == "darwin" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
