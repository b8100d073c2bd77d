"""What measures speed, memory and quality; never needed to train or to use a model."""

import configs as configs  # checks that our packages are there, before a benchmark imports them
from engine.interruption import report_ctrl_c_in_one_line

report_ctrl_c_in_one_line()
