"""The durable queue between selection and upload: what it accepted survives a power cut, what it loses it declares.

Start at `spool.Spool`. `blobs` is the file format, `index` the SQLite accounts, `recovery` what happens at a start,
`thinning` the rules for a full disk.
"""

from edge_agent.spool.recovery import SpoolBusy
from edge_agent.spool.sample import Accepted, Account, Limits, NotAccepted, Record, RecordKind, Sample
from edge_agent.spool.spool import Spool

__all__ = [
    "Accepted",
    "Account",
    "Limits",
    "NotAccepted",
    "Record",
    "RecordKind",
    "Sample",
    "Spool",
    "SpoolBusy",
]
