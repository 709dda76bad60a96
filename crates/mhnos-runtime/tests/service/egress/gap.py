# Two connections through the proxy: one from before the bridge dies, one made while there is none that accepts.
import os, socket, sys
from urllib.parse import urlsplit

target = sys.argv[1]

def ask():
    proxy = urlsplit(os.environ['HTTP_PROXY'])
    stream = socket.create_connection((proxy.hostname, proxy.port))
    stream.sendall(f'CONNECT {target} HTTP/1.1\r\n\r\n'.encode())
    return stream

def tell(name, text=''):
    with open('telling', 'w') as file:
        file.write(text)
    os.rename('telling', name)

before = ask()
assert before.recv(100).startswith(b'HTTP/1.1 200')
os.mkfifo('go')
tell('ready')
open('go').read()
during = ask()
tell('asked')
try:
    broken = before.recv(1) == b''
except ConnectionResetError:
    broken = True
answer = during.recv(100)
during.sendall(b'GET /after HTTP/1.1\r\n\r\n')
served = b''
while not served.endswith(b'GET /after'):
    served += during.recv(100)
tell('result', f'broken: {broken}, {answer[:12].decode()}')
