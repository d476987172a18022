"""Measuring generators: prompt sets, clips, scores, statistics, reports."""
