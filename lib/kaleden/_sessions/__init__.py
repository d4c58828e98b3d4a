"""Sessions with an owner: launches, scopes, the ledger, monitoring, clean-up."""
