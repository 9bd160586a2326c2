"""A module, or a small folder, per notebook: runs in, tables out."""
