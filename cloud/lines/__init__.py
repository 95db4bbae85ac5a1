"""Product lines: what a line's parts can be, what its errors cost, and the reference images that came with it."""
