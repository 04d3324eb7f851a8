"""Data sources as uint8 arrays, cached and device-resident."""
