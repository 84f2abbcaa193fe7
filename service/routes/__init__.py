"""HTTP, one file per noun. A route validates by type, calls, and returns a view."""
