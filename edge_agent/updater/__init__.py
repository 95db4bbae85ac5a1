"""Taking releases: from a verified manifest to a committed model, or back to the one before.

`slots` is what survives a power cut, `eligible` whether this box may take a release now, `loader` turns verified bytes
into a model and proves it on golden frames, `probation` judges it on real parts, `updater` is the state machine, `loop`
the thread that polls. A signature is never checked here: what arrives from `ota.client` is verified.
"""
