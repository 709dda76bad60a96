# A hostile program: each attempt prints NAME and what came of it, an error's name or "ok". It does no harm where it succeeds.
# Its argument, in JSON: what there is to attack on this machine, and the attempts to make, if not all.
import ctypes, errno, fcntl, json, os, resource, signal, socket, stat, subprocess, sys

given = json.loads(sys.argv[1])

def attempt(name, action):
    if name not in given.get("only", [name]): return
    try:
        result = action()
        print(name, "ok" if result is None else result, flush=True)
    except OSError as error:
        print(name, errno.errorcode.get(error.errno, error.errno), flush=True)

def write(path, data):
    with open(path, "w") as file: file.write(data)

def set_uid(*command):
    # A program that is somebody else's, and changes whoever starts it into that one: if it may.
    ran = subprocess.run([*command, "-u"], capture_output=True, text=True).stdout.strip()
    return "same" if ran == str(os.getuid()) else ran

def file_capability():
    # What a program has by its file: CAP_SETUID, if it may.
    ran = subprocess.run(["./capable", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    effective = next(line.split()[1] for line in ran.splitlines() if line.startswith("CapEff:"))
    return "none" if int(effective, 16) == 0 else effective

def writable(*paths):
    # One of them: opened for writing, and nothing is written.
    for path in paths:
        try: return os.close(os.open(path, os.O_WRONLY))
        except OSError as error: refused = error
    raise refused

def readable(path):
    with open(path, "rb", buffering=0) as file: file.read(1)

def set_uid_of_ones_own():
    subprocess.run(["cp", "/usr/bin/id", "own-id"], check=True)
    os.chmod("own-id", 0o6755)

def interrupt_80():
    # The other architecture's calls: getpid by int 0x80.
    code = "int main(){long r; __asm__ volatile(\"int $0x80\":\"=a\"(r):\"a\"(20)); return 0;}"
    if os.uname().machine != "x86_64": return "SIGSYS"
    subprocess.run(["gcc", "-x", "c", "-o", "int80", "-"], input=code, text=True, check=True)
    ended = subprocess.run(["./int80"]).returncode
    return signal.Signals(-ended).name if ended < 0 else ended

def fill(path, limit):
    chunk, written = b"x" * (1 << 20), 0
    try:
        with open(path, "wb", buffering=0) as file:
            while written < limit: written += file.write(chunk)
    finally:
        os.unlink(path)

def many_files(directory, limit):
    made = 0
    os.mkdir(directory)
    try:
        while made < limit:
            os.close(os.open(f"{directory}/{made}", os.O_CREAT | os.O_WRONLY))
            made += 1
    finally:
        for number in range(made): os.unlink(f"{directory}/{number}")
        os.rmdir(directory)

def many_names(directory, limit):
    # Further names of one file take no inode of a disk's file system, but they do of one in memory.
    made = 0
    os.mkdir(directory)
    try:
        write(f"{directory}/file", "")
        while made < limit:
            os.link(f"{directory}/file", f"{directory}/{made}")
            made += 1
    finally:
        for number in range(made): os.unlink(f"{directory}/{number}")
        os.unlink(f"{directory}/file")
        os.rmdir(directory)

def many_descriptors():
    held = []
    try:
        while len(held) < 10000: held.append(os.open("/dev/null", os.O_RDONLY))
    finally:
        for fd in held: os.close(fd)

def huge_file():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open("huge", "wb") as file:
        try: os.ftruncate(file.fileno(), 1 << 40)
        finally: os.unlink("huge")

def connect(name):
    with socket.socket(socket.AF_UNIX) as unix: unix.connect(name)

def zombies():
    # Orphans of orphans, all to be reaped by somebody else.
    for _ in range(300):
        if os.fork() == 0:
            if os.fork() == 0: os._exit(0)
            os._exit(0)
        os.wait()

def own_walls():
    # A program may confine itself further: a Landlock domain and a filter that allows everything.
    libc = ctypes.CDLL(None, use_errno=True)
    def made(number, *arguments):
        result = libc.syscall(number, *arguments)
        if result < 0: raise OSError(ctypes.get_errno(), "refused")
        return result
    writing = ctypes.c_uint64(2)
    ruleset = made(444, ctypes.byref(writing), 8, 0)
    instruction = ctypes.create_string_buffer((6).to_bytes(4, sys.byteorder) + (0x7FFF0000).to_bytes(4, sys.byteorder))
    program = (ctypes.c_uint64 * 2)(1, ctypes.addressof(instruction))
    child = os.fork()
    if child == 0:
        try:
            made(446, ruleset, 0)
            # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
            if libc.prctl(22, 2, ctypes.byref(program), 0, 0) < 0: os._exit(1)
            try: write("one", "x")
            except PermissionError: os._exit(0)
        finally: os._exit(2)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return "ok" if ended == 0 else f"refused {ended}"

def message_queue(key):
    # System V queues have no name in any directory: who knows the number has it.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.msgget(key, 0) < 0: raise OSError(ctypes.get_errno(), "msgget")

def immutable():
    # FS_IOC_SETFLAGS with FS_IMMUTABLE_FL: a file that even its owner could not remove.
    write("kept", "x")
    with open("kept") as file:
        for flags in [16, 0]: fcntl.ioctl(file, 0x40086602, flags.to_bytes(8, sys.byteorder))

def freeze(directory):
    # FIFREEZE: nobody could write to the file system any more.
    directory = os.open(directory, os.O_RDONLY)
    try: fcntl.ioctl(directory, 0xC0045877, 0)
    finally: os.close(directory)

def device():
    os.mknod("disk", 0o600 | stat.S_IFBLK, os.makedev(8, 0))
    os.unlink("disk")

attempt("hard-link", lambda: os.link(given["victim"], "linked"))
attempt("hard-link-own", lambda: (write("one", "x"), os.link("one", "two"), None)[2])
attempt("rename-out", lambda: os.rename(given["victim"], "stolen"))
attempt("init-root", lambda: (os.listdir(f"/proc/{given['init']}/root/root"), None)[1])
attempt("init-environ", lambda: readable(f"/proc/{given['init']}/environ"))
attempt("set-uid", lambda: set_uid("./roots-id"))
attempt("file-capability", file_capability)
attempt("set-uid-own", set_uid_of_ones_own)
attempt("int80", interrupt_80)
attempt("less-likely-killed", lambda: write("/proc/self/oom_score_adj", "-1000"))
attempt("core-pattern", lambda: writable("/proc/sys/kernel/core_pattern"))
attempt("sysrq", lambda: writable("/proc/sysrq-trigger"))
attempt("kernel-memory", lambda: readable("/proc/kcore"))
attempt("disk", lambda: readable(given["disk"]))
attempt("physical-memory", lambda: os.close(os.open("/dev/mem", os.O_RDONLY)))
attempt("kernel-log", lambda: os.close(os.open("/dev/kmsg", os.O_RDONLY)))
attempt("cgroup", lambda: writable(*given["groups"]))
# What the kernel runs, as root, when a control group of version 1 is left by its last process.
attempt("release-agent", lambda: writable(*given["agents"]))
attempt("block-device", device)
attempt("immutable", immutable)
attempt("freeze", lambda: freeze(given["frozen"]))
attempt("fifo", lambda: os.mkfifo("fifo"))
attempt("descriptors", many_descriptors)
attempt("huge-file", huge_file)
attempt("core-limit", lambda: str(resource.getrlimit(resource.RLIMIT_CORE)[1]))
attempt("abstract-socket", lambda: connect("\0" + given["abstract"]))
attempt("path-socket", lambda: connect(given["path"]))
attempt("message-queue", lambda: message_queue(given["queue"]))
attempt("kill-init", lambda: (os.kill(1, signal.SIGKILL), os.kill(1, signal.SIGSTOP), None)[2])
attempt("zombies", zombies)
attempt("own-walls", own_walls)
if given["own-tree"]:
    attempt("fill-tmp", lambda: fill("/tmp/full", 400 << 20))
    attempt("fill-shm", lambda: fill("/dev/shm/full", 100 << 20))
    attempt("fill-root", lambda: fill("/full", 1 << 20))
    # Each file system in memory there is, none of them larger than it may be: an inode takes memory that is nobody's.
    for place in ["tmp", "dev-shm", "run", "var", "dev"]:
        directory = "/" + place.replace("-", "/")
        attempt(f"fill-inodes-{place}", lambda: many_files(f"{directory}/many", 70000))
        if place != "dev-shm": attempt(f"fill-names-{place}", lambda: many_names(f"{directory}/many", 70000))
attempt("end", lambda: None)
