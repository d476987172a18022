"""Training of VAE and vocoder."""
