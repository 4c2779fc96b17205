"""The collision operators of KO as pure functions of a layer's weights and gradients.

Row i of a layer is neuron i: its weights are the position w_i of a particle, its gradient is the velocity g_i. A layer
has shape (N, D), N rows and D columns; B layers of one shape have shape (B, N, D). Half-precision input is computed in
float32. The result is a new tensor with the dtype of the gradients.
"""

from ko.collisions.batches import LayerBatch, collide, concatenated
from ko.collisions.hard_collision import collide_pairs, hard
from ko.collisions.rows import gram_dtype, unit_rows
from ko.collisions.soft_collision import BLOCK_BYTES, BOUND, soft

__all__ = [
    "BLOCK_BYTES",
    "BOUND",
    "LayerBatch",
    "collide",
    "collide_pairs",
    "concatenated",
    "gram_dtype",
    "hard",
    "soft",
    "unit_rows",
]
