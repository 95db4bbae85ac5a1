"""The boxes: who is there, what they last said, and whether every sample is accounted for (conservation)."""
