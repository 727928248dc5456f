"""The public test kit: a whole cluster in memory, under virtual time."""
