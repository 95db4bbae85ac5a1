"""The gate: judges the exported files a box would run, against the line's own images and the release that runs now."""
