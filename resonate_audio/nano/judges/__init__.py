"""How the three small judges are made."""
