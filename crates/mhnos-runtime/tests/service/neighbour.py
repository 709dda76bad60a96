# What a program tries on a process of the host that is nobody's child here, and on that one's files: PID DIRECTORY
# WORKSPACE, the last of another service. Each attempt prints NAME and what came of it, an error's name or "ok". Nothing of it does harm, but for the last, which ends the process.
import errno, fcntl, os, resource, signal, sys

pid, directory, sibling = int(sys.argv[1]), sys.argv[2], sys.argv[3]

def attempt(name, action):
    try:
        action()
        print(name, "ok", flush=True)
    except OSError as error:
        print(name, errno.errorcode.get(error.errno, error.errno), flush=True)

def of(name, flags=os.O_RDONLY):
    fd = os.open(f"/proc/{pid}/{name}", flags)
    if flags == os.O_RDONLY: os.read(fd, 1)

def by_link():
    os.symlink(f"{directory}/file", "link")
    open("link").read()

def signal_by_pipe():
    # The kernel's own, when there is something to read (fcntl(2), F_SETOWN).
    reader, writer = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETOWN, pid)
    fcntl.fcntl(reader, 10, signal.SIGKILL)  # F_SETSIG
    fcntl.fcntl(reader, fcntl.F_SETFL, fcntl.fcntl(reader, fcntl.F_GETFL) | fcntl.FASYNC)
    os.write(writer, b"x")

attempt("sibling-list", lambda: os.listdir(sibling))
attempt("sibling-read", lambda: open(f"{sibling}/kept").read())
attempt("sibling-read-beside", lambda: open(f"../{os.path.basename(sibling)}/kept").read())
attempt("sibling-append", lambda: open(f"{sibling}/kept", "a"))
attempt("sibling-make", lambda: open(f"{sibling}/new", "x"))
attempt("list", lambda: os.listdir(directory))
attempt("read", lambda: open(f"{directory}/file").read())
attempt("read-by-link", by_link)
attempt("append", lambda: open(f"{directory}/file", "a"))
attempt("make", lambda: open(f"{directory}/new", "x"))
attempt("truncate", lambda: os.truncate(f"{directory}/file", 1))
attempt("hard-link", lambda: os.link(f"{directory}/file", "linked"))
attempt("rename", lambda: os.rename(f"{directory}/other", "stolen"))
attempt("remove", lambda: os.unlink(f"{directory}/third"))
attempt("execute", lambda: os.posix_spawn(f"{directory}/program", ["program"], {}))
for name in ["environ", "maps", "auxv"]: attempt(name, lambda: of(name))
attempt("mem", lambda: of("mem", os.O_RDWR))
attempt("descriptors", lambda: os.listdir(f"/proc/{pid}/fd"))
attempt("its-directory", lambda: os.listdir(f"/proc/{pid}/cwd"))
attempt("its-root", lambda: os.listdir(f"/proc/{pid}/root"))
attempt("less-important", lambda: of("oom_score_adj", os.O_WRONLY))
attempt("another-name", lambda: of("comm", os.O_WRONLY))
attempt("signal", lambda: os.kill(pid, 0))
attempt("signal-by-descriptor", lambda: signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGCONT))
attempt("limit", lambda: resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0)))
attempt("priority", lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
attempt("processors", lambda: os.sched_setaffinity(pid, os.sched_getaffinity(0)))
attempt("scheduler", lambda: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)))
try: signal_by_pipe()
except OSError: pass
print("end", flush=True)
