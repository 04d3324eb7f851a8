"""Metrics of images and networks."""
