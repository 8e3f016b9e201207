"""Repairs of RecBole itself: what it does wrong on any stack (B13, B15, U1, U2, U7)."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from recbole_ext._standins.tools import replace


def mend_data_parallel(module: ModuleType) -> None:
    """Let several processes train on the CPU (gloo), or on the GPUs that ``gpu_id`` names.

    RecBole takes the CUDA device that has the number of the process in any case.
    """
    import torch

    def make(init: Callable[..., None]) -> Callable[..., None]:
        def init_on_any_device(self: Any, config: Any, model: Any) -> None:
            if config["single_spec"]:
                init(self, config, model)
                return
            ids, device = None, config["device"]
            if device.type != "cpu":  # SyncBatchNorm only knows CUDA
                model, ids = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model), [device.index]
            self.config, self.model = config, model
            self.distributed_model = module.DistributedDataParallel(model, device_ids=ids)

        return init_on_any_device

    replace(module.AbstractTrainer, "__init__", make)


def make_directory(dir_path: str) -> None:
    """Take the place of RecBole's `ensure_dir`, which fails when two processes start together."""
    os.makedirs(dir_path, exist_ok=True)


def mend_ensure_dir(module: ModuleType) -> None:
    """Replace it wherever it has been copied to: RecBole may have been imported before us."""
    original = module.ensure_dir
    for name, other in list(sys.modules.items()):
        if name.startswith("recbole.") and getattr(other, "ensure_dir", None) is original:
            other.ensure_dir = make_directory  # type: ignore[attr-defined]


def silence_deprecations(_: ModuleType) -> None:
    """Hide deprecations inside RecBole, no news to its users; those of other code stay visible."""
    for category in (FutureWarning, DeprecationWarning, PendingDeprecationWarning):
        warnings.filterwarnings("ignore", category=category, module=r"recbole\.")
    # torch gives some of its deprecations no category of their own
    warnings.filterwarnings("ignore", message=".* is deprecated", module=r"recbole\.")


def mend_collector(module: ModuleType) -> None:
    """Let `Collector.get_data_struct` move tensors only: counts and numbers have no `.cpu()`."""
    import torch

    def make(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def get_data_struct(self: Any) -> Any:
            values = self.data_struct._data_dict
            others = {k: v for k, v in values.items() if not isinstance(v, torch.Tensor)}
            for key in others:  # they sit this step out
                del values[key]
            struct = original(self)
            values.update(others)
            struct._data_dict.update(others)
            return struct

        return get_data_struct

    replace(module.Collector, "get_data_struct", make)


def mend_download(module: ModuleType) -> None:
    """Download all or nothing, and wait for other processes only when there are any."""

    def make(_: Callable[..., Any]) -> Callable[[Any], None]:
        def _download(self: Any) -> None:
            from recbole_ext._standins.download import download

            download(self)

        return _download

    replace(module.Dataset, "_download", make)


@contextmanager
def keep_anomaly_mode() -> Iterator[None]:
    """Leave autograd's anomaly mode as it was: SINE's module switches it on for every model.

    It costs a third of the speed on a CPU, and a synchronisation per operation on a GPU.
    """
    import torch

    enabled, check_nan = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
    try:
        yield
    finally:
        torch.set_anomaly_enabled(enabled, check_nan)


def leave_anomaly_mode(_: ModuleType) -> None:
    """Switch anomaly mode off where SINE's module was imported before us, and say so.

    Whether the user wanted it can no longer be told: hence the warning.
    """
    import torch

    if torch.is_anomaly_enabled():
        torch.set_anomaly_enabled(False)
        warnings.warn(
            "recbole_ext: importing RecBole had switched autograd's anomaly mode on, and it is off "
            "now; import recbole_ext before recbole, and switch the mode on afterwards if you want "
            "it",
            stacklevel=2,
        )
