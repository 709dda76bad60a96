# Asks the service for its health by three names of this machine, and sends it a fourth question without waiting for the answer.
import socket, sys

port = int(sys.argv[1])
question = b'GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'

def ask(host, family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(60)
        s.connect((host, port))
        try:
            s.sendall(question)
            answer = s.recv(15)
        except (ConnectionResetError, BrokenPipeError):
            answer = b''
        return answer.decode() or 'reset'

print(ask('127.0.0.1'))
print(ask('0.0.0.0'))
print(ask('::ffff:127.0.0.1', socket.AF_INET6))
with socket.create_connection(('127.0.0.1', port)) as s:
    s.sendall(question)
