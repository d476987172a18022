"""Sounds over HTTP: requests, jobs, batches, files."""
