"""The whole loop on one machine, on real solar cells: scenario, plant, run, table.

scenario    every number of a run, as data
schedule    which cell passes which camera when, and the truth that no agent sees
plant       ports, certificates, configuration files, processes
setup       keys, repository, line, reference images, starting model, release 1
progress    the hours as they pass, on the screen
evaluate    models on the test set
figures     everything measured, joined with the truth, under stable names
checks      what must hold, and whether it does
screen      tables and lines for a person
"""
