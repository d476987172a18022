"""What others call: the HTTP API, the studio, listening tests."""
