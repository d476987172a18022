"""What every training run shares: steps, processes, checkpoints, averages, logs."""
