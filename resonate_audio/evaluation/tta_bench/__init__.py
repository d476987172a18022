"""TTA-Bench: its prompts and its dimensions."""
