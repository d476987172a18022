"""Published models by name: what they are made of, fetched, converted once, kept ready."""
