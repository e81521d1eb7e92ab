"""Structured linear maps and the rows that are pulled through them; torch only."""

from boundlab.maps.base import LinearMap, Shape, at_owner, flat
from boundlab.maps.compose import add, compose
from boundlab.maps.conv import Conv, conv_out_space
from boundlab.maps.dense import Diagonal, Identity, MatmulLeft, MatmulRight, Matrix, Outer, Sum, Zero, diagonal, identity
from boundlab.maps.rows import Dense, Origin, Partial, Rows, Select, Spread, Table, Windows, dot
from boundlab.maps.shape import Gather, GatherEach, Permute, Reduce, Reshape, Slice, Transposed, transposed

__all__ = [
    "Conv", "Dense", "Diagonal", "Gather", "GatherEach", "Identity", "LinearMap", "MatmulLeft", "MatmulRight", "Matrix",
    "Origin", "Outer", "Partial", "Permute", "Reduce", "Reshape", "Rows", "Select", "Shape", "Slice", "Spread", "Sum",
    "Table", "Transposed", "Windows", "Zero",
    "add", "at_owner", "compose", "conv_out_space", "diagonal", "dot", "flat", "identity", "transposed",
]
