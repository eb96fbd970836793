"""The compiled loops: each reads the words that the table of the same name writes."""
