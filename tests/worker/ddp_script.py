"""Started by torchrun, in two processes: trains alone, watched, and with a corpus that is missing.

Usage: ddp_script.py BASE FOLDER; each process writes what it saw to FOLDER/rank-N.json.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

from service.errors import CorpusUnreadable
from tests.worker.own_trainers import TEXTS, logged, plain, weights
from worker.callback import ForgettingCallback


def main(base: Path, folder: Path) -> None:
    seen = {}
    callback = ForgettingCallback(TEXTS, windows=5, context=32, steps=[1, 3], limit=10.0)
    for name, callbacks in (("alone", []), ("watched", [callback])):
        trainer = plain(base, folder / name, callbacks=callbacks, max_steps=4)
        trainer.train()
        digest = hashlib.sha256()
        for _, tensor in sorted(weights(trainer).items()):
            digest.update(tensor.numpy().tobytes())
        kl = logged(trainer, "forgetting/kl")
        seen[name] = {"weights": digest.hexdigest(), "kl": kl, "kept": str(callback.kept)}
    trainer = plain(base, folder / "broken", callbacks=[ForgettingCallback("no-such.txt")])
    try:
        trainer.train()
    except (CorpusUnreadable, RuntimeError) as error:
        seen["broken"] = f"{type(error).__name__}: {error}"
    (folder / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
