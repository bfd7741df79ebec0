"""A simulated 100ms, for `simulate`, `demo` and the tests."""

from exporter.simulator import seeds
from exporter.simulator.answers import management_token
from exporter.simulator.beside import Beside, EventQuery, JobQuery, Nothing, UnknownCursorError
from exporter.simulator.company import ACCESS_KEY, SECRET, Company
from exporter.simulator.faults import Fault, Faults
from exporter.simulator.happenings import ClientEvent, Delivery, JoinFailure, WebhookEvent
from exporter.simulator.jobs import KINDS, STATUSES, Asset, Job, Kind
from exporter.simulator.jobs_truth import JobsTruth, jobs_truth_of
from exporter.simulator.replies import Manners
from exporter.simulator.sender import Attempt, WebhookSender
from exporter.simulator.server import SeenRequest, SimulatedApi, real_clock, shifted_clock
from exporter.simulator.shape import ABSENT, Shape
from exporter.simulator.timeline import Peer, Room, Session
from exporter.simulator.truth import Truth, truth_of
from exporter.simulator.webhooks import webhook_events
from exporter.simulator.workspace import RoomQuery, SessionQuery, Workspace
from exporter.simulator.world import World

__all__ = [
    "ABSENT",
    "ACCESS_KEY",
    "KINDS",
    "SECRET",
    "STATUSES",
    "Asset",
    "Attempt",
    "Beside",
    "ClientEvent",
    "Company",
    "Delivery",
    "EventQuery",
    "Fault",
    "Faults",
    "Job",
    "JobQuery",
    "JobsTruth",
    "JoinFailure",
    "Kind",
    "Manners",
    "Nothing",
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
    "WebhookEvent",
    "WebhookSender",
    "Workspace",
    "World",
    "jobs_truth_of",
    "management_token",
    "real_clock",
    "seeds",
    "shifted_clock",
    "truth_of",
    "webhook_events",
]
