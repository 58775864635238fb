"""Pages to read in a browser: one file each, without network, that follows light and dark, paper and phone.

view      what a page is told of a run           charts    figures over steps, as SVG that any width suits
summary   a run in words                         words     which words of an answer the reference does not have
parts     the sections of a run's page           compare   runs side by side
coding    errors coded by hand                   page      templates, style and script -> one document
"""
