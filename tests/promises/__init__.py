"""The promises that kaleden makes, one module for each; see docs/explanation/promises.md."""
