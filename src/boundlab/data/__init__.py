"""Labelled examples from files: one value for all kinds of data sets, and one sentence for whatever is wrong with a file."""
