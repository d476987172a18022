"""One reinforcement algorithm per file."""
