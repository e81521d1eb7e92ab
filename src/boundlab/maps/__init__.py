"""Structured linear maps and the rows that are pulled through them; torch only."""

from boundlab.maps.base import LinearMap, Shape, at_owner, channels_last, flat
from boundlab.maps.boxes import CenterAndRadius, Ends
from boundlab.maps.common import Common
from boundlab.maps.compose import add, compose
from boundlab.maps.conv import Conv, OwnConv, conv_out_space
from boundlab.maps.dense import Diagonal, Identity, MatmulLeft, MatmulRight, Matrix, Outer, Sum, Zero, diagonal, identity
from boundlab.maps.entries import Entries, entries
from boundlab.maps.local import Local
from boundlab.maps.pieces import Pieces
from boundlab.maps.rows import Dense, Explicit, Partial, Rows, Table, dot, norm
from boundlab.maps.select import Select
from boundlab.maps.shape import Gather, GatherEach, Permute, Reduce, Reshape, Slice, Transposed, transposed
from boundlab.maps.spectral import disjoint, lengths, moves, power_estimate, row_norms, spectral_bound, trainable_bound
from boundlab.maps.weights import Chain, EndToEnd, RankOne, chain
from boundlab.maps.windows import Origin, Windows

__all__ = [
    "CenterAndRadius", "Chain", "Common", "Conv", "Dense", "Diagonal", "EndToEnd", "Ends", "Entries", "Explicit",
    "Gather", "GatherEach",
    "Identity", "LinearMap", "Local", "MatmulLeft", "MatmulRight", "Matrix", "Origin", "Outer", "OwnConv", "Partial",
    "Permute", "Pieces", "RankOne", "Reduce", "Reshape", "Rows", "Select", "Shape", "Slice", "Sum", "Table", "Transposed",
    "Windows", "Zero",
    "add", "at_owner", "chain", "channels_last", "compose", "conv_out_space", "diagonal", "disjoint", "dot", "entries",
    "flat", "identity", "lengths", "moves", "norm", "power_estimate", "row_norms", "spectral_bound", "trainable_bound",
    "transposed",
]
