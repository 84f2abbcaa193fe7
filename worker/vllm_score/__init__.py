"""The forgetting pass inside vLLM: hidden states are reduced to per-position numbers in vLLM's own
worker, so that nothing of the vocabulary's size ever leaves it.

With `worker.divergence` it could be a package of its own: it imports nothing else of ours.
"""
