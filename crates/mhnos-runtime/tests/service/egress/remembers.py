# Asks for a name once, and connects to its address when it is told to.
import errno, os, socket

def tell(name, text):
    with open('telling', 'w') as file:
        file.write(text)
    os.rename('telling', name)

address = socket.gethostbyname('old.example')
os.mkfifo('go')
tell('address', address)
open('go').read()
with socket.socket() as s:
    try:
        s.connect((address, 443))
        s.recv(1)
        tell('result', 'the end')
    except OSError as error:
        tell('result', errno.errorcode[error.errno])
