"""client.py URL BODY RESULT RATE: asks until it is told to end; good, bad and what was bad go into RESULT."""

import signal
import sys
import time
import urllib.request

url, body, result, rate = sys.argv[1], sys.argv[2].encode() or None, sys.argv[3], float(sys.argv[4])
end = []
signal.signal(signal.SIGTERM, lambda *_: end.append(1))
good, bad, why = 0, 0, ""
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
while not end:
    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with opener.open(request, timeout=10) as answer:
            text = answer.read().decode()
            if answer.status // 100 == 2 and text:
                good += 1
            else:
                bad, why = bad + 1, text
    except Exception as error:
        if not end:
            bad, why = bad + 1, repr(error)
    time.sleep(1 / rate)
with open(result, "w") as file:
    file.write(f"{good} {bad} {why}\n")
