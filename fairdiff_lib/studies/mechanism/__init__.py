"""What the optimiser does: histories, surrogate, gradients, dose-response."""
