"""Certified radii: how large a set around an input may grow while a statement stays proven, and where an attack breaks it."""
