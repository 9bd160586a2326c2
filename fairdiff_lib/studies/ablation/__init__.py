"""08: every part of the method, with and without: its arms, their runs, the comparison."""
