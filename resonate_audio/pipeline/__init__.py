"""Prompt to waveform: the request, the device, the path itself."""
