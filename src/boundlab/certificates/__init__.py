"""Certificates: what a proof by splitting is made of, its file, and a checker that shares nothing with the search."""
