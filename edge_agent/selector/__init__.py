"""Which parts are worth sending: a randomised rule under an hourly byte budget, every probability recorded.

`terms` measures how hard a part is, `pace` turns the hour's bytes into probabilities, `memory` knows near duplicates,
`rule` throws the coin. Nothing here does I/O or reads a clock; the coin is a hash of seed and part, so a run repeats.
"""
