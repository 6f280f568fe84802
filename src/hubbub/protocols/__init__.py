"""The client protocols, one module or folder each, and the frames that they use.

No code outside this package builds or parses a byte that a client sees.
"""

from .base import ClientProtocol, RoomInfo
from .raw import RawProtocol

__all__ = ["ClientProtocol", "RawProtocol", "RoomInfo"]
