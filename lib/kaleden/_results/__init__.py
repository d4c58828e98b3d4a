"""The results of operations: `Success`, `Failure`, `Outcomes`, `SessionList`, and their tables."""
