"""Pictures for people: overlays on the frames, and the report."""
