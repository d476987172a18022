"""The embedded small models and what they were trained on."""
