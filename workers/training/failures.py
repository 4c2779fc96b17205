"""Whose fault an error is: the job's, which would meet it again, or the machine's, which may be well another time."""

from __future__ import annotations

import errno

import torch

MACHINE_TROUBLE = {
    *(errno.EIO, errno.ENOENT, errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN),
    *(errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE),
}
"""What the operating system says of a disk, network or table that is broken, gone or full."""
OUT_OF_MEMORY = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


class AbsentData(FileNotFoundError):
    """A data set is not on this machine; the message says what to type."""


class DiskTrouble(Exception):
    """What a process that reads data met, or that it was lost; made from a message alone, as torch makes it again."""


def is_infrastructure_error(error: BaseException) -> bool:
    """Whether another try, perhaps on another machine, may do."""
    if isinstance(error, OSError):
        return error.errno in MACHINE_TROUBLE
    return isinstance(error, DiskTrouble | torch.AcceleratorError)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was too little memory, of the process or of the GPU."""
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        # torch's CPU allocator and cuBLAS have no type of their own
        or (isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY))
    )
