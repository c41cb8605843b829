"""Tables in four forms, the page of a report, and where its numbers come from."""
