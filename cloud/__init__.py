"""The cloud: takes samples in, lets people label them, learns, judges, releases, and shows the true accuracy.

Each business word is a folder with the same file names inside: `endpoints` (HTTP), `service` (one transaction per
request or message), `repository` (queries), `schemas` (what HTTP takes and gives). `bootstrap` alone knows every
concrete class. Nothing but `trainer` may import torch.
"""
