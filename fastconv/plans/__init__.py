"""Plans: everything that shapes decide, decided once; what a user can hold."""
