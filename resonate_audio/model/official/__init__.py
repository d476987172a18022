"""Published checkpoints under our names."""
