"""A simulated 100ms: for `simulate`, for `demo`, for the tests."""

from exporter.simulator.answers import Manners, management_token
from exporter.simulator.company import ACCESS_KEY, SECRET, Company
from exporter.simulator.faults import Fault, Faults
from exporter.simulator.server import SeenRequest, SimulatedApi, real_clock, shifted_clock
from exporter.simulator.timeline import ABSENT, Peer, Room, Session, Shape
from exporter.simulator.truth import Truth, truth_of
from exporter.simulator.workspace import RoomQuery, SessionQuery, UnknownCursorError, Workspace
from exporter.simulator.world import World

__all__ = [
    "ABSENT",
    "ACCESS_KEY",
    "SECRET",
    "Company",
    "Fault",
    "Faults",
    "Manners",
    "Peer",
    "Room",
    "RoomQuery",
    "SeenRequest",
    "Session",
    "SessionQuery",
    "Shape",
    "SimulatedApi",
    "Truth",
    "UnknownCursorError",
    "Workspace",
    "World",
    "management_token",
    "real_clock",
    "shifted_clock",
    "truth_of",
]
