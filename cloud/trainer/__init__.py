"""Learns: labels of a line to an adapter release. The only room of the cloud that may import torch.

`settings` what a plant may tune, `snapshot` freezes labels, `lesson` turns samples into tokens (cached on disk),
`service` is the handler of "train" jobs, `describe` words parts for the review page in idle time.
"""
