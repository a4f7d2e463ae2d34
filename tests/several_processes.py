"""Train without batch norm into the folder given, in steps of eight images: what tests/test_distributed.py starts."""
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

from training_models import train  # noqa: E402

from cxr.utils import distributed  # noqa: E402

distributed.start()
# 20 images: two full steps, and one of four, for which a process may have fewer images than another.
train(sys.argv[1], sys.argv[2], batch_size=8 // distributed.world() // int(sys.argv[3]), accumulate=int(sys.argv[3]),
      batch_norm=sys.argv[4] == "batch_norm", resume=True, save_every=0,
      max_steps=int(sys.argv[5]) if len(sys.argv) > 5 else None)
print("rank", distributed.rank(), "saw", [len(part) for part in distributed.gather("ab" * (distributed.rank() + 1))])
