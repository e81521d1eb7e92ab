"""From bounds to verdicts."""
