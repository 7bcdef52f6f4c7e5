"""Tables, charts, sheets, pages.

style       how all figures look
tables      figures as tables
charts      figures as plots
sheets      photographs side by side
people      groups of photographs, to be looked at
scenes      reconstructed places
page        one HTML page with all of it
comparison  the report of an evaluation
benchmark   the report of a benchmark
"""
