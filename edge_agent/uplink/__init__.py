"""Everything the box says to the cloud: samples, records, heartbeat, presence; and what it hears back.

`protocol` decides without I/O, `service` runs it on a thread over a link, `address` opens the link.
"""

from edge_agent.uplink.address import open_link
from edge_agent.uplink.service import Uplink, UplinkStats
from edge_agent.uplink.settings import UplinkSettings

__all__ = ["Uplink", "UplinkSettings", "UplinkStats", "open_link"]
