"""Ways past the policy, each tried; one JSON line each: what was tried, and the errno's name or "ok"."""
import errno, json, socket, struct, sys

HOST, PORT, SERVICE = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def tell(name, attempt):
    try:
        value = attempt()
        print(json.dumps({"attempt": name, "outcome": "ok", "value": value}))
    except OSError as error:
        print(json.dumps({"attempt": name, "outcome": errno.errorcode.get(error.errno, str(error))}))


def tcp(host, port, family=socket.AF_INET):
    def attempt():
        with socket.socket(family, socket.SOCK_STREAM) as s:
            s.settimeout(20)
            s.connect((host, port))
            s.sendall(b"GET /raw HTTP/1.1\r\n\r\n")
            return s.recv(9).decode()
    return attempt


def udp(host, port, family=socket.AF_INET):
    def attempt():
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            s.settimeout(20)
            s.connect((host, port))
            s.send(b"out")
            # A refusal comes with the next call.
            s.settimeout(0.5)
            try:
                s.recv(1)
            except TimeoutError:
                pass
            return "sent"
    return attempt


def ask(server, name, kind=1):
    """A question for a name, past the resolver."""
    def attempt():
        labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
        question = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + struct.pack(">BHH", 0, kind, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(20)
            s.connect((server, 53))
            s.send(question)
            answer = s.recv(512)
            answers = struct.unpack(">H", answer[6:8])[0]
            return {"code": answer[3] & 15, "answers": answers, "end": list(answer[-4:]) if answers else []}
    return attempt


tell("tcp", tcp(HOST, PORT))
tell("tcp to the service", tcp("127.0.0.1", SERVICE))
tell("tcp to a public address", tcp("203.0.113.9", 8443))
tell("tcp over IPv6", tcp("2606:4700::1111", 8443, socket.AF_INET6))
tell("udp", udp(HOST, PORT))
tell("udp over IPv6", udp("2606:4700::1111", 443, socket.AF_INET6))
tell("http to the metadata", tcp("169.254.169.254", 80))
tell("http to the metadata, mapped", tcp("::ffff:169.254.169.254", 80, socket.AF_INET6))
tell("http to the metadata of IPv6", tcp("fd00:ec2::254", 80, socket.AF_INET6))
tell("http to a private address", tcp("10.255.255.1", 80))
tell("https to a multicast address", tcp("224.0.0.251", 443))
tell("another server for names", ask("9.9.9.9", "example.org"))
tell("a name with data in it", ask("127.0.0.1", "c2VjcmV0.data.example.org"))
tell("text of a name", ask("127.0.0.1", "c2VjcmV0.data.example.org", 16))
tell("a raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close())
