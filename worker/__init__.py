"""Runs jobs: `service`'s store and maths, and a GPU. Never imports the web half."""
