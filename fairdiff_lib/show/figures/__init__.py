"""Figures: a module per notebook; a function that draws registers itself by ``figure``."""
