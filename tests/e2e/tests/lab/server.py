"""A service with requests that make a system call which no other one makes: /CALL."""

import http.server
import os

# All of them are harmless, and nothing in Python makes them unasked.
CALLS = {
    "sched_rr_get_interval": lambda: os.sched_rr_get_interval(0),
    "sched_getparam": lambda: os.sched_getparam(0),
    "sched_getscheduler": lambda: os.sched_getscheduler(0),
    "sched_get_priority_max": lambda: os.sched_get_priority_max(os.SCHED_OTHER),
    "getresuid": os.getresuid,
    "getpgid": lambda: os.getpgid(0),
    "getsid": lambda: os.getsid(0),
    "getpriority": lambda: os.getpriority(os.PRIO_PROCESS, 0),
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        call = CALLS.get(self.path[1:])
        text = f"{call()}\n".encode() if call else b"fine\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


http.server.HTTPServer(("127.0.0.1", 8111), Handler).serve_forever()
