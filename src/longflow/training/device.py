"""Where to compute, and in which precision."""

import os

import torch

from longflow.errors import UsageError


def prepare(device: str, threads: int | None = None) -> torch.device:
    """Return the device of that name ("auto": a GPU where there is one), set for reproducible IEEE float32.

    TF32, which NVIDIA's convolutions use by default, costs a flow three digits of invertibility: it is off.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    if threads is not None:
        if threads < 1:
            raise UsageError(f"expected --threads >= 1; {threads} came")
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        if torch.device(device).type not in ("cpu", "cuda"):
            raise RuntimeError("expected cpu or cuda")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device '{device}' is not to be had here ({str(error).splitlines()[0]})") from error
    return torch.device(device)
