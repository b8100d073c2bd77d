"""The project's commands: `python -m scripts.NAME`.

This file runs before the module of any command, whose imports take seconds: what is wrong with the Python, and Ctrl-C
during those imports, end in one line too.
"""

import configs as configs  # checks that our packages are there, before a command imports them
from engine.interruption import report_ctrl_c_in_one_line

report_ctrl_c_in_one_line()
