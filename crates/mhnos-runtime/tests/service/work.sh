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
echo step node-more
cat > child.js <<'END'
process.on("message", text => { process.send(text + "!"); process.disconnect(); });
END
node -e '
const fs = require("fs"), { fork } = require("child_process");
const child = fork("child.js"); child.send("ipc");
child.on("message", text => { if (text !== "ipc!") process.exit(3); });
const watcher = fs.watch(".", (event, name) => { if (name === "seen") watcher.close(); });
fs.writeFileSync("seen", "1");
'
cat > some.test.js <<'END'
require("node:test")("it", () => require("node:assert").equal(1, 1));
END
node --test some.test.js > /dev/null
node --inspect=127.0.0.1:0 -e '
if (!require("inspector").url().startsWith("ws://127.0.0.1:")) process.exit(4); process.exit(0)' 2> /dev/null
echo step npm
mkdir -p pkg app
printf '{"name":"pkg","version":"1.0.0","scripts":{"postinstall":"gcc -shared -fPIC -o n.so n.c"}}' > pkg/package.json
printf 'int n(void){return 1;}' > pkg/n.c
(cd pkg && npm pack --silent > /dev/null)
printf '{"name":"app","version":"1.0.0"}' > app/package.json
(cd app && npm install --offline --no-audit --no-fund --silent --foreground-scripts ../pkg/pkg-1.0.0.tgz > /dev/null)
test -s app/node_modules/pkg/n.so
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
cat > pools.py <<'END'
import multiprocessing as m
def g(x): return x * x
if __name__ == "__main__":
    for method in METHODS:
        with m.get_context(method).Pool(2) as p: assert p.map(g, [2, 3]) == [4, 9]
END
python3 pools.py
python3 -m venv --without-pip v; v/bin/python -c 'import sys; assert sys.prefix != sys.base_prefix'
echo step git
git init -q r; cd r; git -c user.name=a -c user.email=a@example.org commit -q --allow-empty -m x; cd ..; git clone -q r c
echo step gcc
printf 'int main(){return 0;}' > t.c; gcc -o t t.c; ./t
echo all done
