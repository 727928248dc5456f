"""Who may do what: the Node authorizer and RBAC, in upstream's order."""
