"""What is computed about tickets after training, one question a module; pure functions of pytrees.

Where a function answers for every layer, it returns a dict by leaf name, of the prunable leaves, with all of them
together under `ALL`.
"""

ALL = "all"
