"""Services, workers, broker and database under random faults; nothing may be lost or doubled."""
