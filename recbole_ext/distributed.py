"""Training in several processes (``--nproc=2``): nccl between GPUs, gloo between CPU processes."""

from __future__ import annotations

import atexit
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed
import torch.multiprocessing as mp

from recbole_ext.callbacks.build import build_callbacks
from recbole_ext.config import Config, device_of
from recbole_ext.run_folder import clear_unused
from recbole_ext.types import UserError

OF_A_PROCESS = ("local_rank", "offset", "world_size", "port")
"""What each process of a run is told beside the run's settings."""

Job = Callable[[Config, Path], dict[str, Any]]


def spawn_run(config: Config, folder: Path, job: Job) -> dict[str, Any]:
    """Run a configuration in ``nproc`` processes and return the result of the first.

    Args:
        config: Settings, checked already; ``world_size``, ``ip``, ``port`` and ``group_offset``
            join several machines.
        folder: Run folder, which exists; the first process writes into it.
        job: What every process does; a function of a module, for the processes import it.

    Raises:
        UserError: A warm start would have to be trained in every process, a process has no GPU of
            its own, or a callback works in one process only.
    """
    try:
        _check(config)
    except UserError:
        clear_unused(folder, {path.name for path in folder.iterdir()})  # it may be new and empty
        raise
    nproc = config["nproc"]

    settings = {
        **config.resolved,
        "world_size": config["world_size"] or nproc,
        "port": config["port"] or _free_port(),
        "offset": config["group_offset"],
    }
    queue = mp.get_context("spawn").SimpleQueue()
    try:
        mp.spawn(_work, args=(settings, folder, queue, job), nprocs=nproc, join=True)
    except mp.ProcessRaisedException as error:
        last = str(error).strip().splitlines()[-1]
        if "UserError: " in last:
            raise UserError(last.partition("UserError: ")[2]) from None
        raise
    except KeyboardInterrupt:  # SIGTERM comes to this process alone, which would wait for them
        for process in mp.active_children():
            process.terminate()
        raise
    return queue.get()


def _check(config: Config) -> None:
    """Refuse what several processes cannot do before there are any."""
    if (
        getattr(config.model_class, "warm_start", None)
        and not config["pretrained_path"]
        and config["pretrain"] == "auto"
    ):
        raise UserError(
            "with nproc, train the warm start first in one process and give its folder as "
            "--pretrained_path"
        )
    for rank in range(config["nproc"]):
        device_of(config["use_gpu"], config["gpu_id"], rank)
    for callback in build_callbacks(config["callbacks"]):
        if callback.one_process_only:
            raise UserError(
                f"callbacks: {type(callback).__name__} works in one process only "
                f"({callback.one_process_only}); remove it, or train with nproc: 1"
            )


def _work(rank: int, settings: dict[str, Any], folder: Path, queue: Any, job: Job) -> None:
    config = Config(config_dict={**settings, "local_rank": rank})
    try:
        result = job(config, folder)
        if rank == 0:
            queue.put(result)
    finally:
        torch.distributed.destroy_process_group()
    _leave()


def _leave() -> None:
    """End this process without the interpreter's own end.

    Threads of gloo outlive their process group (torch 2.13: three of them, also after a garbage
    collection), and where the interpreter goes before they do they end the process with SIGABRT.
    """
    atexit._run_exitfuncs()  # wandb and multiprocessing say goodbye there
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]
