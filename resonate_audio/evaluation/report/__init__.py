"""Comparisons, tables and the page that needs no network."""
