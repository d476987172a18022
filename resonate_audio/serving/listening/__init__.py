"""Listening tests: their plan, pages, answers and results."""
