"""Training nano's three judges: tasks for the loop that every trainer here shares."""
