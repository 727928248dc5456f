"""What makes Services work: packet rules, pod network, DNS."""
