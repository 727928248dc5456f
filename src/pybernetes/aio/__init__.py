"""An asyncio kit that knows nothing of Kubernetes: time, queues, backoff, broadcast, supervision."""
