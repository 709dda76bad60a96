"""Waits until OpenClaw's gateway is healthy, and prints what it says."""

import sys
import time
import urllib.error
import urllib.request

direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
for _ in range(300):
    try:
        with direct.open("http://127.0.0.1:18789/health", timeout=5) as answer:
            print(answer.read().decode())
            sys.exit(0)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        time.sleep(0.2)
sys.exit("the gateway did not answer within a minute")
