LEVELS = ("goto_win",)
def size_of(level): return 8, 8
def draw(level, rng): raise NotImplementedError
