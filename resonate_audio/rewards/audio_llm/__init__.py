"""Audio-language models that are asked a yes-or-no question."""
