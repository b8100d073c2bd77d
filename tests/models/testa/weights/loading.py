"""Loading weights into TESTA's models, whose formats are TESTA's."""

from functools import partial

from models.checkpoints import load
from models.testa.weights.formats import FORMATS

load_into = partial(load.load_into, formats=FORMATS)
fit = partial(load.fit, formats=FORMATS)
