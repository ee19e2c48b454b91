"""Checkpoints: which there are, where they lie, and networks with their weights."""

from vocalsep.weights.networks import Checkpoint, fingerprint, load, load_network, read_network, save
from vocalsep.weights.register import Entry, manifest
from vocalsep.weights.store import UnverifiedWeightsWarning, find, sha256, user_folder

__all__ = [
    "Checkpoint",
    "Entry",
    "UnverifiedWeightsWarning",
    "find",
    "fingerprint",
    "load",
    "load_network",
    "manifest",
    "read_network",
    "save",
    "sha256",
    "user_folder",
]
