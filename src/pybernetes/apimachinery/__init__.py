"""Pure values and algebra of the Kubernetes API: metadata, quantities, selectors, patches, errors."""
