"""Ranks as processes: who they are, how they meet, and what happens when one is lost.

==================  ==============================================================
:mod:`environment`  rank, world size and address from the launcher's variables
:mod:`join`         ``join(found, claim=…, gpus=…) -> World``: all ranks shake hands
:mod:`watch`        ``with watched(world):`` a lost rank ends every other one
:mod:`launch`       ``launch(program, arguments, size=…)``: ranks on this machine
:mod:`standing`     ranks that stay, to which functions are sent again and again
==================  ==============================================================

A rank's program is the same whoever started it::

    found = environment.find()                    # None: no launcher's variables
    if found is None:
        result = launch(program, arguments, size=gpus)    # rank 0's result

    def program(*arguments):                      # in every rank
        found = environment.find()
        world = join(found, claim=digest, gpus=gpus)
        with watched(world):                      # closes it, too
            ...                                   # collectives on world.group
"""
