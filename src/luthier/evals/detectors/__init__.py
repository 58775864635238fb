"""What can be seen to be wrong with an answer without a judge, and the parts that the detectors are made of.

table      all detectors on one screen          answered   an answer as detectors see it
task       what training rows show of the task  same       one answer to all prompts
shape, relation, wording                        the detectors
words, repeats, copies, formats, grounding, spelling, refusals, leaks: what they look for
"""
