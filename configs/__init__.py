"""Every setting of a run, typed and checked."""

from configs.environment import check_environment

check_environment()
