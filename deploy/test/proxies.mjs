// A client behind a reverse proxy: node proxies.mjs ADDRESS, with TOKEN in the environment. Starts a server in the sandbox, and reaches
// it by the address the service tells of it, as a browser would. Exit status 0 if all of it holds.

import dns from 'node:dns';
import { Runtime } from '../../examples/demo/client.mjs';

// Names of previews are below a domain that no hosts file can name in full; in DNS it is a wildcard record.
const { lookup } = dns;
dns.lookup = (name, ...rest) => lookup(name.endsWith('.example.org') ? 'localhost' : name, ...rest);

const SERVER = `
const http = require('http'), crypto = require('crypto');
const server = http.createServer((request, response) => response.end('hello from ' + request.headers['x-forwarded-proto']));
server.on('upgrade', (request, socket) => {
  const key = request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
  socket.write('HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Accept: ' +
    crypto.createHash('sha1').update(key).digest('base64') + '\\r\\n\\r\\n');
  socket.write(Buffer.from([0x81, 4, ...Buffer.from('ping')]));
});
server.listen(3000, '127.0.0.1');`;

function expect(actual, expected, what) {
  if (actual !== expected) throw new Error(`${what}: ${actual} instead of ${expected}`);
}

const runtime = await Runtime.connect(process.argv[2], [`mhnos.token.${process.env.TOKEN}`]);
try {
  const greeting = await runtime.spawn('shell', 'echo', ['through the proxy'], { pty: false });
  expect(await runtime.outputOf(greeting), 'through the proxy\n', 'a program says');

  const url = await runtime.preview(await runtime.spawn('node', '-e', [SERVER], { pty: false }));
  expect(/^https:\/\/p\d+-3000-\w+\.run\.example\.org\/$/.test(url), true, `the preview's address ${url}`);
  const page = await fetch(url);
  expect(`${page.status} ${await page.text()}`, '200 hello from https', 'the preview says');

  const message = await new Promise((resolve, reject) => {
    const socket = new WebSocket(url.replace('https:', 'wss:'));
    socket.onmessage = ({ data }) => resolve(data);
    socket.onerror = () => reject(new Error('the WebSocket of the preview failed'));
  });
  expect(message, 'ping', "the preview's WebSocket says");
  console.log(`${runtime.hello.type}, a program, a preview and its WebSocket through ${process.argv[2]}`);
} catch (error) {
  console.error(`FAILED: ${error.message}`);
  process.exitCode = 1;
}
await runtime.endAll();
process.exit();
