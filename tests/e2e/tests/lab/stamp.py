"""stamp.py: each line of the standard input with the time at which it came before it, seconds since 1970."""

import sys
import time

for line in iter(sys.stdin.readline, ""):
    print(f"{time.time():.3f}", line, end="", flush=True)
