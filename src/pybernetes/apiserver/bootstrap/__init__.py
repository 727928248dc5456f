"""What every cluster has from its first moment: roles, namespaces, the `kubernetes` Service."""
