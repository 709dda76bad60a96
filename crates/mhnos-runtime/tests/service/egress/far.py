# A host in a network of its own: waits for its end of a cable, then answers on ports 80 and 8080 who asks for what.
import http.server, socket, subprocess, sys, threading

print('here', flush=True)
sys.stdin.readline()
for command in (
    'link set lo up',
    'link set far up',
    '-6 address add fd77::2/64 dev far nodad',
    '-6 address add 2001:db8:77::2/64 dev far nodad',
):
    subprocess.run(['ip', *command.split()], check=True)

class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        said = f'GET {self.path} for {self.client_address[0]}'.encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_):
        pass

servers = [Server(('::', port), Answer) for port in (80, 8080)]
for server in servers:
    threading.Thread(target=server.serve_forever).start()
print('serving', flush=True)
