"""Volumes: directories that pods share with this machine."""
