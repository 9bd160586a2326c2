"""What the study takes, and what the optimiser finds where the best is known; no library."""
