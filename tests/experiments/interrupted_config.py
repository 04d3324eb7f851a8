"""The tiny search as a configuration file, for the processes that are killed: two rounds of 44 steps."""

from tests import tiny


def get_config():
    return tiny.config(train__epochs=4, train__batch_size=128, imp__rounds=2, log_every=1, evaluation__points=4)
