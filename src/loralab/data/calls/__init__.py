"""The embedded task: plain English requests to structured calls as JSON."""
