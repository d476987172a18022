"""From a prompt set to a folder of clips, ours or another generator's."""
