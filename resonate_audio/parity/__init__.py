"""Checks against golden vectors of the published code."""
