"""What a rename relies on: file contents and directory entries that are on the disk."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Force files and directory entries to the disk, so that what follows may rely on them."""
    for path in [*(file for file in folder.iterdir() if file.is_file()), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
