"""What travels between us and clients: one module or folder for each client protocol, and the frames they are made of.

Nothing outside of this package builds or parses a byte that a client sees.
"""

from .base import ClientProtocol, RoomInfo
from .raw import RawProtocol, Resume

__all__ = ["ClientProtocol", "RawProtocol", "Resume", "RoomInfo"]
