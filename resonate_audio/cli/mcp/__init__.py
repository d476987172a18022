"""Sounds as tools of an assistant that speaks the Model Context Protocol."""
