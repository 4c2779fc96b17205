"""The collision operators of KO as pure functions of a layer's weights and gradients.

Row i is neuron i: its weights are the particle's position w_i, its gradient the velocity g_i. Shapes: N rows, D
columns, or B such layers at once. Half-precision input is computed in float32; the answer has the gradients' dtype and
is always a new tensor.
"""

from ko.collisions.encounters import Encounter, collide, stacked
from ko.collisions.repulsion import BLOCK_BYTES, BOUND, soft
from ko.collisions.rows import gram_dtype, unit_rows
from ko.collisions.scattering import collide_pairs, hard

__all__ = [
    "BLOCK_BYTES",
    "BOUND",
    "Encounter",
    "collide",
    "collide_pairs",
    "gram_dtype",
    "hard",
    "soft",
    "stacked",
    "unit_rows",
]
