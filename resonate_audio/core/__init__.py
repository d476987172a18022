"""The nouns: types, errors, configuration, files, seeded noise."""
