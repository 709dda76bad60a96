"""`listen`: a server of every address, TCP and UDP. `ask`: who answers on its port, by which address; one line each."""
import errno, os, socket, struct, sys, threading

PORT, WORD = 8080, b"the neighbour"
FAMILIES = {False: socket.AF_INET, True: socket.AF_INET6}


def accept(listener):
    while True:
        stream, _ = listener.accept()
        stream.sendall(WORD)
        stream.close()


def echo(datagrams):
    while True:
        _, peer = datagrams.recvfrom(64)
        datagrams.sendto(WORD, peer)


def listen():
    for family, everywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        for kind, serve in ((socket.SOCK_STREAM, accept), (socket.SOCK_DGRAM, echo)):
            s = socket.socket(family, kind)
            if family == socket.AF_INET6:
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            s.bind((everywhere, PORT))
            if kind == socket.SOCK_STREAM:
                s.listen(16)
            threading.Thread(target=serve, args=(s,)).start()
    os.write(1, b"listening\n")


def ask(address, kind, prepare=lambda s: None):
    family = FAMILIES[":" in address]
    try:
        with socket.socket(family, kind) as s:
            prepare(s)
            # For what is sent and lost: no answer is one of the answers.
            s.settimeout(1)
            s.connect(socket.getaddrinfo(address, PORT, family, kind)[0][4])
            if kind == socket.SOCK_DGRAM:
                s.send(b"?")
            return s.recv(64).decode()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))


def by_lo(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")


def by_source_route(s):
    """By way of the loopback (RFC 791, loose source and record route)."""
    hops = socket.inet_aton("127.0.0.1")
    s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, struct.pack("BBB", 131, 3 + len(hops), 4) + hops + b"\0")


if sys.argv[1] == "listen":
    listen()
else:
    for kind, name in ((socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")):
        for address in ("127.0.0.1 127.7.7.7 0.0.0.0 ::1 ::ffff:127.0.0.1 203.0.113.9 10.0.0.1 169.254.169.254 "
                        "198.18.0.16 2001:2::10 2606:4700::1111 fd00:ec2::254 ::ffff:203.0.113.9 224.0.0.251 ff0e::fb "
                        "255.255.255.255 fe80::1%lo").split():
            print(f"{name} {address}: {ask(address, kind)}")
        print(f"{name} 203.0.113.9 by lo: {ask('203.0.113.9', kind, by_lo)}")
        print(f"{name} 203.0.113.9 by a route of its own: {ask('203.0.113.9', kind, by_source_route)}")
