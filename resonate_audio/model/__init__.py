"""One network per arrow of the straight path."""
