"""Judges of the CLAP family: text and sound in one space."""
