"""What measures speed, memory and quality; never needed to train or to use a model."""

import configs as configs  # a Python without our packages is told so here, before a benchmark imports them
