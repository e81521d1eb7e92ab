"""Structured linear maps and the rows that are pulled through them; torch only."""

from boundlab.maps.base import LinearMap, Shape, at_owner, channels_last, flat
from boundlab.maps.compose import add, compose
from boundlab.maps.conv import Conv, conv_out_space
from boundlab.maps.dense import Diagonal, Identity, MatmulLeft, MatmulRight, Matrix, Outer, Sum, diagonal, identity
from boundlab.maps.local import Local
from boundlab.maps.pieces import Pieces
from boundlab.maps.rows import Dense, Explicit, Partial, Rows, Table, dot
from boundlab.maps.select import Select
from boundlab.maps.shape import Gather, Permute, Reduce, Reshape, Slice, Transposed, transposed
from boundlab.maps.windows import Origin, Windows

__all__ = [
    "Conv", "Dense", "Diagonal", "Explicit", "Gather", "Identity", "LinearMap", "Local", "MatmulLeft", "MatmulRight", "Matrix",
    "Origin", "Outer", "Partial", "Permute", "Pieces", "Reduce", "Reshape", "Rows", "Select", "Shape", "Slice", "Sum", "Table",
    "Transposed", "Windows",
    "add", "at_owner", "channels_last", "compose", "conv_out_space", "diagonal", "dot", "flat", "identity", "transposed",
]
