"""``python -m lang_agent``: the command line."""

import os
import sys

if __name__ == "__main__":
    # Python put the current folder first, where a file `random.py` would stand for Python's own.
    if not sys.flags.safe_path and sys.path[0] == os.getcwd():
        sys.path.append(sys.path.pop(0))

    from lang_agent.cli.main import main

    main()
