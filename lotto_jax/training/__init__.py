"""The scanned loop over the ticket axis and the mesh, and its checkpoints."""
