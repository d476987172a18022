"""Captioned recordings: manifests, caches."""
