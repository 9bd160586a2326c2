"""What a training method does to a batch."""
