"""The record of truth and its HTTP door. Imports neither torch nor `worker`."""
