"""Protocols of the paper, one file each."""
