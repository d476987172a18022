"""Recipes: a validated file to a run."""
