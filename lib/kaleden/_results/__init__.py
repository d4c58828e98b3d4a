"""The outcomes of operations: `Success`, `Failure`, `Outcomes`, and how they are shown."""
