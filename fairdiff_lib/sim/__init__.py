"""Simulated patients, written in the original layouts, with a known planted disparity."""
