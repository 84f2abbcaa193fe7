"""The demo: a tiny base, a generated dataset, a sweep through the service, two pictures."""
