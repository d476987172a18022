"""Text in, sound out; and a generator that learns from feedback."""
