"""From a study's folder to its answer: collect the records, make the tables and figures, write one offline report.

This package reads the folder of a study and nothing else: it loads neither torch nor Ray, needs no GPU and no network,
and takes from `sbbridge` only the record schema. `python -m analysis report DIR` does it all.
"""
