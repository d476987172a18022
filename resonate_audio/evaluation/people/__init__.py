"""What people say: opinion scores, rated clips, correlation with them."""
