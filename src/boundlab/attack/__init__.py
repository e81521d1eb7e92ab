"""Search for counterexamples."""
