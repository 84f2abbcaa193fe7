"""The wire: what comes in (`spec`), what goes out (`views`, `result`, `laws`)."""
