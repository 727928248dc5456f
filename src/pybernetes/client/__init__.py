"""What every component uses to talk to the API: transport, typed client, caches, controller loop."""
