"""What vLLM wants to find in the environment, set in one place before it is imported.

A variable that is set already is the operator's word and stays.
"""

import os

IN_PROCESS = {
    # The engine lives in the job's child and ends with it; nobody else is asked for its memory.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # Entry points of other packages could change a model's numbers.
    "VLLM_PLUGINS": "",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_HOST_IP": "127.0.0.1",
    # Threads are torch's, as in the transformers engine; binding would move the whole child.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


def prepare() -> None:
    for name, value in IN_PROCESS.items():
        os.environ.setdefault(name, value)
