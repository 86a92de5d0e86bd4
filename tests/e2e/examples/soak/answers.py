"""answers.py RESULT: sets keys of redis and gets them back until it is told to end; `GOOD BAD` goes into RESULT."""

import random
import signal
import socket
import sys
import time

end = []
signal.signal(signal.SIGTERM, lambda *_: end.append(1))
good, bad = 0, 0


def ask(connection, *words):
    text = b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)
    connection.sendall(b"*%d\r\n%s" % (len(words), text))
    answer = b""
    while not answer.endswith(b"\r\n") or answer[:1] == b"$" and answer.count(b"\r\n") < 2:
        more = connection.recv(65536)
        if not more:
            raise ConnectionError("redis has closed the connection")
        answer += more
    return answer


with socket.create_connection(("127.0.0.1", 6379)) as connection:
    while not end:
        key, value = b"key:%d" % random.randrange(1000), b"%032x" % random.getrandbits(128)
        right = ask(connection, b"SET", key, value) == b"+OK\r\n"
        right = ask(connection, b"GET", key) == b"$32\r\n%s\r\n" % value and right
        good, bad = good + right, bad + (not right)
        time.sleep(0.02)
with open(sys.argv[1], "w") as file:
    file.write(f"{good} {bad}\n")
