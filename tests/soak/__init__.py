"""A soak: very many mixed operations with faults and cancellations, and what they leave."""
