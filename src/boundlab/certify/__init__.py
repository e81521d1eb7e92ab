"""A data set certified: which inputs are provably safe, how far, and where the network fails."""
