"""A soak test: many mixed operations with faults and cancellations, and their leftovers."""
