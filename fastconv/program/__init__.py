"""A whole network as one list of engine calls."""
