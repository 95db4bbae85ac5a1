"""People's judgements of samples: the review queue, labels with their whole history, undo, skip, flag.

One open task per sample; a label closes it, an undo opens it again. Nothing is overwritten: a correction is a newer
label, an undo is a row of its own.
"""
