"""Tables of the papers, run again on the published weights: ours beside the published figures."""
