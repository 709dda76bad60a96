"""Files of a directory over https, on the host: https.py ADDRESS CERTIFICATE KEY DIRECTORY; prints its port."""
import functools, http.server, ssl, sys

address, certificate, key, directory = sys.argv[1:]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


handler = functools.partial(Quiet, directory=directory)
server = http.server.ThreadingHTTPServer((address, 0), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
