"""Asks the URL of its first argument and prints what comes back."""

import platform
import sys
import urllib.request

# Inside a sandbox localhost is the sandbox's own: no proxy leads there.
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
request = urllib.request.Request(sys.argv[1], headers={"User-Agent": f"Python {platform.python_version()}"})
with direct.open(request, timeout=20) as answer:
    print(answer.read().decode(), end="")
