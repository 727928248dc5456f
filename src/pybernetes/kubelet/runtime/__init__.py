"""Container runtimes: one interface, a real one behind it (CRI) and a simulated one."""
