"""The measurements: each phase takes one target through one kind of load and adds what it saw to the report.

A phase leaves nothing behind that could disturb the next one: Tollgate's outboxes are drained before it returns.
"""
