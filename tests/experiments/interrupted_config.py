"""The tiny search as a configuration file, for the processes that are killed: one round of 45 steps."""

from tests import tiny


def get_config():
    return tiny.config(train__epochs=4, train__batch_size=128, imp__rounds=1, log_every=1)
