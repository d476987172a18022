"""Judges that hear a sound and say how well it answers its text; they know no generator."""
