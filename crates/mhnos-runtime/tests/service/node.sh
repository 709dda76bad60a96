# What Node.js is used for; part of work.sh, and by itself for each line of Node.js.
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
echo step node-inspect
cat > debugger.mjs <<'END'
// As a debugger does: by the address that a program tells, one call. Another may have taken a port.
import { spawn } from "node:child_process";
for (const port of INSPECTED) {
  const inspected = spawn("node", [`--inspect=127.0.0.1:${port}`, "-e", "setInterval(() => {}, 1000)"], { stdio: ["ignore", "ignore", "pipe"] });
  const told = await new Promise(done => {
    let all = "";
    inspected.stderr.on("data", text => { if ((all += text).includes("\n")) done(all); });
    inspected.on("exit", () => done(all));
  });
  console.error(told);
  const url = /^Debugger listening on (ws:.*)$/m.exec(told)?.[1];
  if (!url) { inspected.kill(); continue; }
  const debug = new WebSocket(url);
  const answer = await new Promise((done, failed) => {
    debug.onerror = ({ message }) => failed(new Error(`${url}: ${message}`));
    debug.onopen = () => debug.send(JSON.stringify({ id: 1, method: "Runtime.evaluate", params: { expression: "6 * 7" } }));
    debug.onmessage = ({ data }) => { const message = JSON.parse(data); if (message.id === 1) done(message); };
  });
  if (answer.result?.result?.value !== 42) throw new Error(JSON.stringify(answer));
  inspected.kill();
  process.exit(0);
}
throw new Error("no free port to be inspected on");
END
node debugger.mjs
echo step npm
mkdir -p pkg app
printf '{"name":"pkg","version":"1.0.0","scripts":{"postinstall":"gcc -shared -fPIC -o n.so n.c"}}' > pkg/package.json
printf 'int n(void){return 1;}' > pkg/n.c
(cd pkg && npm pack --silent > /dev/null)
printf '{"name":"app","version":"1.0.0"}' > app/package.json
(cd app && npm install --offline --no-audit --no-fund --silent --foreground-scripts ../pkg/pkg-1.0.0.tgz > /dev/null)
test -s app/node_modules/pkg/n.so
