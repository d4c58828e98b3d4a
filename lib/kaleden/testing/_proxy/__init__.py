"""`FaultProxy`: a TCP proxy that injects faults."""
