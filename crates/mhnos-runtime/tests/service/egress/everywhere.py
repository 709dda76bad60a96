"""Listens on every address there is, TCP and UDP, and answers whoever asks; each line on stdin gets a list of who came."""
import json, socket, sys, threading

came = []


def tcp(listener):
    while True:
        stream, _ = listener.accept()
        came.append(["tcp", *stream.getsockname()[:2]])
        stream.recv(1)
        stream.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        stream.close()


def udp(datagrams, port):
    while True:
        heard, peer = datagrams.recvfrom(512)
        came.append(["udp", port])
        if port == 53:
            # The question again, and an address or a text, whatever was asked for.
            head, question = heard[:2] + b"\x81\x80" + heard[4:6] + b"\0\1\0\0\0\0", heard[12:]
            heard = head + question + b"\xc0\x0c" + question[-4:] + b"\0\0\0\x3c\0\4\x03abc"
        datagrams.sendto(heard, peer)


def listen(family, everywhere, kind, port):
    s = socket.socket(family, kind)
    if family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((everywhere, port))
    if kind == socket.SOCK_STREAM:
        s.listen(64)
    arguments = (s,) if kind == socket.SOCK_STREAM else (s, port)
    threading.Thread(target=tcp if kind == socket.SOCK_STREAM else udp, args=arguments, daemon=True).start()


for family, everywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    for port in (80, 443, 8443):
        listen(family, everywhere, socket.SOCK_STREAM, port)
    for port in (53, 443, int(sys.argv[1])):
        listen(family, everywhere, socket.SOCK_DGRAM, port)
print("listening", flush=True)
for _ in sys.stdin:
    print(json.dumps(came), flush=True)
    came.clear()
