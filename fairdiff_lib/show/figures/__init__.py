"""Figures: a module per notebook."""
