# Makes system calls by number, as given: NAME,NUMBER[,ARGUMENT]... and says in the probe's way what came of each.
import ctypes, errno, json, sys

libc = ctypes.CDLL(None, use_errno=True)
for spec in sys.argv[1:]:
    name, number, *arguments = spec.split(",")
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(int(number)), *[ctypes.c_long(int(value, 0)) for value in arguments])
    failed = result == -1
    report = {"attempt": name, "outcome": "denied" if failed else "ok", "value": None}
    if failed:
        report["errno"] = errno.errorcode.get(ctypes.get_errno(), str(ctypes.get_errno()))
    print(json.dumps(report), flush=True)
