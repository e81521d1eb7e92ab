"""The part of `programs` that needs the extra `lp`, imported when a program is first written."""

from boundlab.programs import inner, integer, leaf, tasks

__all__ = ["inner", "integer", "leaf", "tasks"]
