"""Signals with units: files, resampling, mel front ends, loudness."""
