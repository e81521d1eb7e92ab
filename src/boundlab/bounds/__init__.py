"""The interpreters: pure functions from a graph, intervals and relaxations to bounds."""
