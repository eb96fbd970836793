"""What the comparisons are made of, each file using only those above it.

windows
cases, networks     what is computed: layers; whole networks
answers             what is right
rows                a case checked and timed: a row of figures
report              rows printed
peers/              one adapter per library
options             the command line
memory              peaks, in new processes
run                 all of it, table by table
"""
