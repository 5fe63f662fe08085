"""What lies outside the loop: a request to stop, and the other processes that torchrun started."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from longflow.errors import UsageError


@contextmanager
def stopping() -> Iterator[list[int]]:
    """Turn Ctrl-C and SIGTERM into a request, seen between two steps; a second one stops at once."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    kept = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


@contextmanager
def processes(device: torch.device) -> Iterator[int]:
    """Join the processes that torchrun started, and yield this one's rank; rank 0 without torchrun."""
    if "RANK" not in os.environ:
        yield 0
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    yield dist.get_rank()
    dist.barrier()
    dist.destroy_process_group()


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def agreed(rank: int, action: Callable[[], None]) -> None:
    """Do something in the first process only; where it is the user's mistake, every process raises it."""
    if not dist.is_initialized():
        return action()
    said: list[str | None] = [None]
    if rank == 0:
        try:
            action()
        except (UsageError, OSError) as error:
            said = [str(error)]
    dist.broadcast_object_list(said)
    if said[0]:
        raise UsageError(said[0])


def anywhere(asked: bool) -> bool:  # noqa: FBT001
    """Return whether any process was asked to stop."""
    if not dist.is_initialized():
        return asked
    flag = torch.tensor(float(asked), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(flag)
    return bool(flag > 0)
