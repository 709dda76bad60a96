// Shows every process type against a running service: node demo.mjs [ws://localhost:18790]

import { readdir, readFile } from 'node:fs/promises';
import { get } from 'node:http';

import { DEADLINE, Runtime, text, within } from './client.mjs';

const address = process.argv[2] ?? 'ws://localhost:18790';

/** What a browser would see at a preview. Names below localhost, which not every resolver knows, are the service's own address. */
function open(preview, path = '/') {
  const { hostname, port, host } = new URL(preview);
  const connect = hostname.endsWith('.localhost') ? new URL(address).hostname : hostname;
  const seen = new Promise((resolve, reject) => {
    const asked = get({ host: connect, port, path, headers: { host, 'user-agent': 'a browser' } }, async (response) => {
      const chunks = await response.toArray().catch(reject);
      resolve(`${response.statusCode}: ${Buffer.concat(chunks ?? [])}`);
    });
    asked.on('error', reject);
  });
  return within(DEADLINE, `an answer of ${preview}`, seen);
}

const say = (title, detail) => console.log(`${title.padEnd(10)} ${detail.trimEnd().replaceAll('\n', '\n           ')}`);

/** Puts the programs of this demonstration into the workspace, under /demo. */
async function push(runtime) {
  const directory = new URL('programs/', import.meta.url);
  const names = await readdir(directory);
  const files = await Promise.all(
    names.map(async (name) => ({
      path: `/demo/${name}`,
      kind: 'file',
      content: [...(await readFile(new URL(name, directory)))],
    })),
  );
  const { results } = await runtime.request('fsync', { operation: 'push', files });
  if (results.failed > 0) throw new Error(JSON.stringify(results.errors));
  say('files', `${results.synced} pushed to /demo`);
}

async function node(runtime) {
  const server = await runtime.spawn('node', '/demo/server.mjs');
  const url = await runtime.firstLine(server);
  say('node', `serves ${url} inside the sandbox`);
  const ask = await runtime.spawn('python', '/demo/ask.py', [url]);
  say('python', await runtime.outputOf(ask));
  const preview = await runtime.preview(server);
  say('preview', `${preview} shows ${await open(preview)}`);
  await runtime.kill(server);
}

async function workerd(runtime) {
  const worker = await runtime.spawn('workerd', '/demo/worker.js', ['--port', '8787']);
  const preview = await runtime.preview(worker);
  const { ports } = await runtime.request('ports', { pid: worker });
  const ask = await runtime.spawn('python', '/demo/ask.py', [`http://127.0.0.1:${ports[0].port}/demo`]);
  say('workerd', await runtime.outputOf(ask));
  say('preview', `${preview} shows ${await open(preview, '/demo')}`);
  await runtime.kill(worker);
}

async function shell(runtime) {
  const session = await runtime.spawn('shell', '/bin/bash', ['--norc'], { cwd: '/demo', pty: { cols: 80, rows: 24 } });
  await runtime.write(session, 'PS1=; stty -echo; clear; echo "[$(tty)] bash $BASH_VERSION"; ls; exit\r');
  const output = await runtime.outputOf(session);
  say('shell', output.slice(output.lastIndexOf('[/dev/')).replaceAll('\r', ''));
}

async function openclaw(runtime) {
  if (!runtime.hello.config.allowOpenClaw) {
    say('openclaw', 'not allowed by this service (MHNOS_ALLOW_OPENCLAW=true make run)');
    return;
  }
  const gateway = await runtime.spawn('openclaw', 'gateway');
  const ask = await runtime.spawn('python', '/demo/gateway.py');
  say('openclaw', `the gateway's /health: ${await runtime.outputOf(ask)}`);
  await runtime.kill(gateway);
}

const runtime = await Runtime.connect(address).catch((error) => {
  console.error(error.message);
  process.exit(1);
});
const { protocolVersion, config } = runtime.hello;
say('service', `protocol ${protocolVersion}, sandbox ${config.sandboxMode}, workspace ${config.workspace}`);
let failed = 0;
for (const show of [push, node, workerd, shell, openclaw]) {
  try {
    await show(runtime);
  } catch (error) {
    failed += 1;
    say(show.name, `FAILED: ${error.message}`);
  }
}
await runtime.endAll();
runtime.close();
say('demo', failed === 0 ? 'everything answered' : `${failed} of the above failed`);
process.exitCode = failed === 0 ? 0 : 1;
