"""Benchmarks as lm-evaluation-harness scores them: files of their authors -> prompts -> records -> scores.

documents   a row of a file -> what is asked, the choices, which is right
tasks       TASKS: every benchmark on one screen
files       where the files are, and what is in them
prompts     shots and questions -> text -> tokens
run         a task and a model -> one record a document
results     records -> metrics with intervals
"""
