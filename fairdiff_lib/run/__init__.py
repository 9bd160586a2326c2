"""Commands: the graph, one notebook, verification."""
