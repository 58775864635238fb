"""What the detectors look for.

shape      length, form, ending                 words, repeats, copies, formats, grounding, spelling,
relation   the answer beside prompt,                 refusals, leaks: the parts they are made of
           reference and training
wording    spelling, loops, refusal,
           leaked tokens, language
"""
