"""Stable Diffusion: built, loaded, its loss, its samples."""
