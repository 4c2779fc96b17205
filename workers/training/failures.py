"""Classification of errors: those of the job, which a retry would repeat, and those of the machine, which may pass."""

from __future__ import annotations

import errno

import torch

MACHINE_ERRNOS = {
    *(errno.EIO, errno.ENOENT, errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN),
    *(errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE),
}
"""Error numbers for a disk, network or table of open files that is broken, missing or full."""
OUT_OF_MEMORY = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "bad_alloc", "could not create a primitive")
"""Texts of torch's CPU allocator, cuBLAS, C++ and oneDNN, which have no type of their own."""


class AbsentData(FileNotFoundError):
    """A data set is not on this machine; the message suggests how to get it."""


def is_infrastructure_error(error: BaseException) -> bool:
    """Whether a retry, perhaps on another machine, may succeed."""
    if isinstance(error, OSError):
        return error.errno in MACHINE_ERRNOS
    return isinstance(error, torch.AcceleratorError)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the process or the GPU ran out of memory."""
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY))
    )
