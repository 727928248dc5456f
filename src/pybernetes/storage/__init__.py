"""A revisioned key-value store with the semantics of etcd."""
