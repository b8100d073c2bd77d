"""What measures speed, memory and quality; never needed to train or to use a model."""

import configs as configs  # a Python without our packages is told so here, before a benchmark imports them
from engine.interruption import report_ctrl_c_in_one_line

report_ctrl_c_in_one_line()
