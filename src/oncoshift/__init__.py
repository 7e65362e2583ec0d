"""oncoshift: adapt a tissue classifier to an unlabelled organ, and prove that it worked."""

import os

# Threads of OpenMP that wait for work sleep. Left to themselves they spin, and trainings that share the cores take from
# one another the time in which they do nothing. Torch's library reads this once, as torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
