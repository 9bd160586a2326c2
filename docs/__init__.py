"""The book and the main figures: built from results, no part of the library."""
