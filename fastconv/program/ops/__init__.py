"""Operations that only networks need, on arrays: the layers use them, and so does the program."""
