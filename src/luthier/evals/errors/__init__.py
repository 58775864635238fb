"""What is wrong with answers, and what in the data caused it.

answered   an answer as detectors see it        task       what training rows show of the task
detectors  what is wrong with an answer,        signs/     what they look for: shape, relation to prompt and
           without a judge                                 reference, wording; and the parts these share
slices     where answers are worse              kinds      kinds of rows: by length, by topic
nearest    training rows most like a text       suspects   training rows whose answer is doubtful
same       one answer for all prompts           first      what is told before any table
"""
