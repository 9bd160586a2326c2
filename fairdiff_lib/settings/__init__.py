"""What can be chosen: options, presets, methods; plain data, no network."""
