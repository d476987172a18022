"""Rollouts, rewards and updates: what every algorithm shares."""
