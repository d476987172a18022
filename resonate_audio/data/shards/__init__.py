"""Tar shards with an index: written, read in any order, encoded by many workers."""
