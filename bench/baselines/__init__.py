"""The scripts that people would write otherwise, as the baseline: plain PyTorch, one network and one seed a run.

`loader` decodes and transforms clip by clip in every epoch, `memory` keeps features in memory. Both are as good
as their way allows, and share nothing with melcnn.
"""

from bench.baselines import loader, memory

# By the name that tables show.
BASELINES = {"DataLoader, clip by clip": loader.train, "features in memory": memory.train}
