"""Training: one jitted step over a mesh, checkpoints, the loop."""
