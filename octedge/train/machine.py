"""What a training runs on: device, arithmetic, and the processes that torchrun started."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from octedge.errors import UsageError

Arithmetic = Literal["bf16-mixed", "16-mixed", "32-true"]
LONGEST_WAIT = timedelta(hours=6)  # for the first process to validate; the others wait


def launch(precision: str) -> Fabric:
    """This process's part of a training: the GPU where there is one, and the other processes, if `torchrun` started any.

    One process without torchrun uses one GPU. torchrun says how many processes there are and where they meet
    (LOCAL_WORLD_SIZE, WORLD_SIZE); each has its own GPU, or its share of the cores.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # says the precision at every start
    device: Literal["cuda", "cpu"] = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = arithmetic(precision, device, native_bf16(device))
    if torch.distributed.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1:
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // local
        fabric = Fabric(accelerator=device, devices=local, num_nodes=nodes, precision=wanted, strategy=DDPStrategy(timeout=LONGEST_WAIT))
    else:
        fabric = Fabric(accelerator=device, devices=1, precision=wanted)
    fabric.launch()
    return fabric


def first_process() -> bool:
    """Whether this is the one process, or the first of those that torchrun started: it speaks and writes."""
    return os.environ.get("RANK", "0") == "0"


def arithmetic(precision: str, device: str, bf16: bool) -> Arithmetic:
    """`bf16` in a recipe means mixed precision: bf16 where the device has it, else fp16 with a scaled loss on GPUs, fp32 on CPUs."""
    if precision == "fp32":
        return "32-true"
    if bf16:
        return "bf16-mixed"
    return "16-mixed" if device == "cuda" else "32-true"


def native_bf16(device: str) -> bool:
    """Whether the device multiplies bf16 numbers without emulating it."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Running out of memory, on a GPU or not, becomes a `UsageError` that says what `what` was and what to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)):
            raise
        raise UsageError(f"out of memory: {what}; what was saved stays, a smaller recipe starts anew") from error
