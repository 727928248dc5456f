"""The composition root: decides which parts run in which process, and starts them in order."""
