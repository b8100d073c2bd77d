"""The project's commands: `python -m scripts.NAME`."""

import configs as configs  # a Python without our packages is told so here, before a script imports them
