"""The node agent: turns the pods bound to this node into containers."""
