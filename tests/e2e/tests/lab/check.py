"""check.py TIMES: prints sums of what many functions of Python and of its libraries compute, in threads."""

import hashlib
import json
import re
import sys
import threading
import zlib


def work(n, out):
    data = json.dumps({str(i): re.sub("[13]", "x", str(i * n)) for i in range(500)}).encode()
    again = zlib.decompress(zlib.compress(data))
    out[n] = (hashlib.sha256(data).hexdigest(), zlib.crc32(again))


for _ in range(int(sys.argv[1])):
    out = {}
    threads = [threading.Thread(target=work, args=(n, out)) for n in range(1, 5)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    print(sorted(out.items()), sum(i * i % 7 for i in range(20000)), 2**4000 % 10**50, flush=True)
