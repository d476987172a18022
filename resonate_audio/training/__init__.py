"""Trainers: flow-matching pre-training, mel VAE, vocoder."""
