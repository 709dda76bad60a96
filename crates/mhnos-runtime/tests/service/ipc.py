# Objects that processes share by a name or a number: ACTION NAME NUMBER, where ACTION is make, reach or remove. Prints a line
# for each kind of object: "ok" or an error's name. Each kind is made twice, for everybody and ("own-") for its user alone.
import ctypes, errno, os, sys

ACTION, NAME, NUMBER = sys.argv[1], sys.argv[2], int(sys.argv[3])
SECRET = b"a secret"
libc = ctypes.CDLL(None, use_errno=True)
libc.sem_open.restype = ctypes.c_void_p
libc.shmat.restype = ctypes.c_void_p
# Before glibc 2.34 it is not in libc.
queues = libc if hasattr(libc, "mq_open") else ctypes.CDLL("librt.so.1", use_errno=True)
MAKE = ACTION == "make"
CREATE = os.O_CREAT | os.O_EXCL if MAKE else 0
IPC_CREATE = 0o3000 if MAKE else 0
IPC_RMID = 0
os.umask(0)

def checked(result):
    if result in (-1, None, 2 ** 64 - 1): raise OSError(ctypes.get_errno(), "refused")
    return result

def named(name): return ("/" + name).encode()

def shared_memory(name, key, mode):
    if ACTION == "remove": return checked(libc.shm_unlink(named(name)))
    fd = checked(libc.shm_open(named(name), os.O_RDWR | CREATE, mode))
    if MAKE: os.write(fd, SECRET)
    # Whoever has it open has what is in it.
    assert os.pread(fd, 100, 0) == SECRET

def semaphore(name, key, mode):
    if ACTION == "remove": return checked(libc.sem_unlink(named(name)))
    checked(libc.sem_open(named(name), CREATE, mode, 1))

def queue(name, key, mode):
    if ACTION == "remove": return checked(queues.mq_unlink(named(name)))
    checked(queues.mq_open(named(name), os.O_RDWR | CREATE, mode, None))

def v_shared_memory(name, key, mode):
    segment = checked(libc.shmget(key, len(SECRET) if MAKE else 0, mode | IPC_CREATE))
    if ACTION == "remove": return checked(libc.shmctl(segment, IPC_RMID, None))
    at = checked(libc.shmat(segment, None, 0))
    if MAKE: ctypes.memmove(at, SECRET, len(SECRET))
    assert ctypes.string_at(at, len(SECRET)) == SECRET

def v_semaphore(name, key, mode):
    semaphores = checked(libc.semget(key, 1 if MAKE else 0, mode | IPC_CREATE))
    if ACTION == "remove": checked(libc.semctl(semaphores, 0, IPC_RMID))

def v_queue(name, key, mode):
    found = checked(libc.msgget(key, mode | IPC_CREATE))
    if ACTION == "remove": checked(libc.msgctl(found, IPC_RMID, None))

KINDS = [shared_memory, semaphore, queue, v_shared_memory, v_semaphore, v_queue]
for whose, mode in [("", 0o666), ("own-", 0o600)]:
    for kind in KINDS:
        try:
            kind(whose + NAME, NUMBER + (1 if whose else 0), mode)
            print(whose + kind.__name__, "ok")
        except OSError as error:
            print(whose + kind.__name__, errno.errorcode.get(error.errno, error.errno))
print("end", flush=True)
# Where their namespace ends with its last process, the objects do.
sys.stdin.read()
