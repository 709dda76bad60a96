// Shows every process type against a running service: node demo.mjs [ws://localhost:18790]
//
// The first half is a whole client of the protocol; the second half uses it.

import { readdir, readFile } from 'node:fs/promises';
import { get } from 'node:http';

const DEADLINE = 120_000; // ms; nothing here takes that long

/** One connection. Requests are answered by id; output and exits are kept for each process until somebody asks. */
class Runtime {
  static connect(address) {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(address, ['mhnos.v1']);
      socket.onerror = () => reject(new Error(`no service at ${address}; is \`make run\` running?`));
      socket.onmessage = (first) => {
        const hello = JSON.parse(first.data);
        resolve(new Runtime(socket, hello));
      };
    });
  }

  #socket;
  #nextId = 1;
  #answers = new Map();
  #events = [];
  #waiting = new Set();
  #started = new Set();

  constructor(socket, hello) {
    this.#socket = socket;
    this.hello = hello;
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    socket.onclose = () => this.#fail(new Error('the service closed the connection'));
  }

  #receive(message) {
    const answer = this.#answers.get(message.id);
    if (answer) {
      this.#answers.delete(message.id);
      if (message.type === 'error') answer.reject(new Error(message.error));
      else answer.resolve(message);
      return;
    }
    if (message.type === 'exit') this.#started.delete(message.pid);
    this.#events.push(message);
    for (const look of this.#waiting) look.now();
  }

  #fail(error) {
    for (const { reject } of this.#answers.values()) reject(error);
    for (const { reject } of this.#waiting) reject(error);
  }

  /** Sends a request; resolves with its answer, rejects with its error. */
  request(type, fields = {}) {
    const id = String(this.#nextId++);
    const answered = new Promise((resolve, reject) => this.#answers.set(id, { resolve, reject }));
    this.#socket.send(JSON.stringify({ type, id, ...fields }));
    return within(DEADLINE, `an answer to ${type}`, answered);
  }

  /** Starts a process; resolves with its pid. */
  async spawn(processType, command, args = [], options = {}) {
    const { pid } = await this.request('spawn', { processType, command, args, options });
    this.#started.add(pid);
    return pid;
  }

  /** Ends what this connection has started and what has not ended by itself. */
  async endAll() {
    for (const pid of this.#started) await this.kill(pid).catch(() => {}); // it may have ended meanwhile
  }

  /** Resolves with what `find` makes of the events of a process so far, as soon as that is something. */
  when(pid, what, find) {
    const found = new Promise((resolve, reject) => {
      const look = { reject };
      look.now = () => {
        let result;
        try {
          result = find(this.#events.filter((event) => event.pid === pid));
        } catch (error) {
          reject(error);
        }
        if (result === undefined) return;
        this.#waiting.delete(look);
        resolve(result);
      };
      this.#waiting.add(look);
      look.now();
    });
    return within(DEADLINE, what, found);
  }

  /** The first line a process prints. */
  firstLine(pid) {
    return this.when(pid, 'a line', (events) => text(events).match(/^(.*)\n/)?.[1]);
  }

  /** Everything a process prints, once it has ended; an error where it failed. */
  async outputOf(pid) {
    const events = await this.when(pid, 'an exit', (all) => (all.at(-1)?.type === 'exit' ? all : undefined));
    const { code, signal } = events.at(-1);
    if (code !== 0) throw new Error(`ended with ${signal ?? code}: ${text(events, 'stderr') || text(events)}`);
    return text(events);
  }

  /** The preview of the first port a process listens on, as soon as it does. */
  preview(pid) {
    return this.when(pid, 'port', (events) => {
      if (events.some((event) => event.type === 'exit')) throw new Error(`it ended: ${text(events, 'stderr')}`);
      return events.find((event) => event.type === 'port')?.url;
    });
  }

  write(pid, data) {
    return this.request('write', { pid, data });
  }

  kill(pid) {
    return this.request('kill', { pid, signal: 'SIGTERM' });
  }

  close() {
    this.#socket.onclose = null;
    this.#socket.close();
  }
}

/** What a browser would see at a preview. Not every resolver knows the names below localhost, as browsers do. */
function open(preview, path = '/') {
  const { hostname, port, host } = new URL(preview);
  const connect = hostname.endsWith('.localhost') ? 'localhost' : hostname;
  const seen = new Promise((resolve, reject) => {
    const asked = get({ host: connect, port, path, headers: { host } }, async (response) => {
      const chunks = await response.toArray().catch(reject);
      resolve(`${response.statusCode}: ${Buffer.concat(chunks ?? [])}`);
    });
    asked.on('error', reject);
  });
  return within(DEADLINE, `an answer of ${preview}`, seen);
}

function text(events, stream = 'stdout') {
  return events.filter((event) => event.type === stream).map((event) => event.data).join('');
}

function within(milliseconds, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} within ${milliseconds / 1000} s`)), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
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
  const worker = await runtime.spawn('workerd', '/demo/worker.js');
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

const runtime = await Runtime.connect(process.argv[2] ?? 'ws://localhost:18790').catch((error) => {
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
