"""Rotations, cameras and crops, Procrustes alignment, and the mirroring of left hands."""
