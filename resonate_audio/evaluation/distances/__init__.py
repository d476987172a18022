"""Distances between sets of clips: embeddings, formulas, the values of a set."""
