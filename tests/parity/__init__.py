"""Numbers of the reference implementations, and the command that compares our models with them."""

import configs as configs  # a Python without our packages is told so here
