"""The one training loop, and the runs made with it."""
