"""Custom resources: kinds that come while the server runs, from CustomResourceDefinitions."""
