"""From a folder of clips to a store of scores."""
