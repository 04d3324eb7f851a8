"""Losses and their train steps, one file a family."""
