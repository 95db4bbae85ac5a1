"""Importable stand-ins with knobs: cameras, reviewer, broker, object store, and the demo that runs it all."""
