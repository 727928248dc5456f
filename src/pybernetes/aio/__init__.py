"""A small asyncio kit that knows nothing of Kubernetes.

Clocks and virtual time, work queue, broadcast, back-off, doubling batches,
supervision. Import from the modules; they are small and have few names each.
"""
