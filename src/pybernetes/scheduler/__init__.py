"""Decides which node runs a pod, and can say why not."""
