"""Scores and features, fast."""
