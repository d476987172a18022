"""Flow-matching pre-training."""
