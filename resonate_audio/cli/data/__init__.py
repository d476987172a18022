"""`resonate data`: bring recordings in, mix, check, encode and pack them."""
