"""Test suites: what a model must answer, written as YAML.

spec      what a suite may hold: every key on one screen
document  YAML -> a spec, or an error with the line
cases     groups, rows and {columns} -> cases: one prompt with its checks each
checks    an answer and a check -> passed or not, and why
results   outcomes -> pass rates, thresholds
junit     results -> the XML that CI servers read
"""
