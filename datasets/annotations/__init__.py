"""One parser an annotation format; each gives a list of records and needs neither torch nor a video."""
