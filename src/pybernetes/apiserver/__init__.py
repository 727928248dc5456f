"""HTTP in, storage out: the Kubernetes API."""
