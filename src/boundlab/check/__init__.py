"""What a network is made of, how each node will be bounded, what is missing, and what bounds will take."""
