# What programs do for a living; each step ends the script if it fails. PORT is where a server may listen.
set -eu
export HOME="$PWD" TMPDIR=/tmp
echo step files
mkdir -p a/b; echo x > a/b/f; mv a/b/f a/g; ln -s g a/h; ln a/g a/i; chmod 600 a/g; cat a/h > /dev/null; rm -r a
echo step redirection
echo x > /dev/null; echo x > /dev/stderr; : < /dev/stdin
echo step node
node -e '
const fs = require("fs"), cp = require("child_process"), http = require("http"), os = require("os");
const { Worker } = require("worker_threads");
fs.writeFileSync("n", "1"); fs.renameSync("n", "m"); fs.watch(".").close(); fs.unlinkSync("m");
cp.execSync("true"); os.cpus();
new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]));
new Worker("require(\"worker_threads\").parentPort.postMessage(7)", { eval: true }).on("message", v => {
  if (v !== 7) process.exit(1);
});
const s = http.createServer((q, r) => r.end("y")).listen(PORT, "127.0.0.1", () =>
  fetch("http://127.0.0.1:PORT").then(r => r.text()).then(t => { if (t !== "y") process.exit(2); s.close(); }));
'
echo step python
python3 - <<'END'
import asyncio, multiprocessing as m, sqlite3, subprocess, tempfile, socket
async def f(): return await asyncio.sleep(0, 3)
assert asyncio.run(f()) == 3
def g(x): return x * x
with m.get_context("fork").Pool(2) as p: assert p.map(g, [2, 3]) == [4, 9]
from multiprocessing import shared_memory
s = shared_memory.SharedMemory(create=True, size=64); s.close(); s.unlink()
d = sqlite3.connect("t.db"); d.execute("pragma journal_mode=wal"); d.execute("create table t(a)"); d.commit(); d.close()
subprocess.run(["true"], check=True); tempfile.TemporaryFile().close()
a, b = socket.socketpair(); a.send(b"x"); assert b.recv(1) == b"x"
END
echo step git
git init -q r; cd r; git -c user.name=a -c user.email=a@example.org commit -q --allow-empty -m x; cd ..; git clone -q r c
echo step gcc
printf 'int main(){return 0;}' > t.c; gcc -o t t.c; ./t
echo all done
