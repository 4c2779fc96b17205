"""Counter-based random number generator (RNG): each number is a pure function of a key and a counter.

It has no generator object and no hidden state. A resumed, copied or distributed run therefore draws the same numbers as
an uninterrupted one, and torch's global generator is neither read nor advanced. The function is the finalizer of
SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), computed on int64
tensors, whose products wrap modulo 2^64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_MASK = 2**64 - 1
# SplitMix64: the odd integer nearest 2^64 / golden ratio, and the two multipliers of its finalizer.
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_UNIT = 2.0**-24  # float32 represents every multiple of this in [0, 1) exactly


def key(*parts: int) -> int:
    """Mix integers, in the order given, into one 64-bit key, for example `key(seed, step, index)`."""
    mixed = 0
    for part in parts:
        mixed = _mix((mixed ^ (part & _MASK)) + _GOLDEN)
    return mixed


def as_tensor(key: int | Tensor | Sequence[int]) -> Tensor:
    """Keys as an int64 tensor with the same 64 bits; all functions of this module accept either form."""
    if isinstance(key, Tensor):
        return key
    return torch.tensor(_signed(key) if isinstance(key, int) else [_signed(k) for k in key], device="cpu")


def bits(key: int | Tensor, counters: Tensor) -> Tensor:
    """64 random bits per counter.

    Args:
        key: an integer from `key`, or int64 keys that broadcast against `counters`.
        counters: int64, any shape.

    Returns:
        int64, of the broadcast shape.
    """
    # The xor has no effect on the value. Without it, Inductor folds a constant offset of the counters into a constant
    # that overflows.
    z = (counters ^ 0) * _signed(_GOLDEN) + (key if isinstance(key, Tensor) else _signed(key))
    z = (z ^ _shift(z, 30)) * _signed(_FIRST)
    z = (z ^ _shift(z, 27)) * _signed(_SECOND)
    return z ^ _shift(z, 31)


def uniform(bits: Tensor) -> Tensor:
    """Uniform float32 numbers in [0, 1), multiples of 2^-24, one per element of `bits`."""
    return _field(bits, 40) * _UNIT


def normal(bits: Tensor) -> Tensor:
    """Standard normal float32 numbers, two per element: (..., n) -> (..., 2 n). Source: Box and Muller 1958."""
    # The argument of the logarithm is in (0, 1). At 1 both numbers would be 0, a vector without a direction.
    radius = ((_field(bits, 40) + 1) * _UNIT).clamp(max=1 - _UNIT).log().mul(-2).sqrt()
    angle = _field(bits, 8) * (2 * math.pi * _UNIT)
    return torch.cat((radius * angle.cos(), radius * angle.sin()), dim=-1)


def _field(bits: Tensor, position: int) -> Tensor:
    """The 24 bits that start at bit `position`, as float32."""
    return (bits.bitwise_right_shift(position) & 0xFFFFFF).float()


def _shift(z: Tensor, by: int) -> Tensor:
    """Logical right shift; torch's right shift of a signed integer is arithmetic."""
    return z.bitwise_right_shift(by) & ((1 << (64 - by)) - 1)


def _mix(z: int) -> int:
    """The finalizer of SplitMix64, on a Python integer."""
    z &= _MASK
    z = ((z ^ (z >> 30)) * _FIRST) & _MASK
    z = ((z ^ (z >> 27)) * _SECOND) & _MASK
    return z ^ (z >> 31)


def _signed(bits: int) -> int:
    """The same 64 bits as a signed integer, for an int64 tensor."""
    return bits - 2**64 if bits >> 63 else bits
