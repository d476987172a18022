"""Generators of other people, to be taught: one file each."""
