"""Data sets as declared objects, and one reader per original layout."""
