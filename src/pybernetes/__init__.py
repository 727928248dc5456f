"""Kubernetes in Python: API server, controllers, scheduler, node agent and network in one process."""

__version__ = "0.1.0"
