"""Checkpoints: which ones there are, where they lie, how they are read and written.

A checkpoint is a folder in the shape of a repository on the Hub: README.md (the model card), config.json (the kind of
network and its configuration) and model.safetensors (its weights).
"""

from vocalsep.weights.checkpoint import Checkpoint, save_checkpoint
from vocalsep.weights.load import NetworkType, checkpoint_config, checkpoint_sha256, find, load_checkpoint, load_network
from vocalsep.weights.manifest import Entry, manifest

__all__ = [
    "Checkpoint",
    "Entry",
    "NetworkType",
    "checkpoint_config",
    "checkpoint_sha256",
    "find",
    "load_checkpoint",
    "load_network",
    "manifest",
    "save_checkpoint",
]
