"""Whether everything is right on this machine: what ``fastconv check`` runs.

`functions` and `models` compare with the naive loops, `gradients` with differences, on what
`trials` draws; `deep` looks for what crashes, hangs, leaks or rounds too much. All give scores.
"""
