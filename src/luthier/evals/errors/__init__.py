"""What is wrong with answers, and what in the data caused it.

    answered   an answer as detectors see it          detectors  what is wrong with it, without a judge
    task       what training rows show of the task    slices     where answers are worse than elsewhere
    nearest    the training rows most like a text     suspects   training rows whose label is doubtful
"""
