// One check of a running service: node check.mjs ADDRESS CHECK [ARGUMENTS]. Exit status 0 if it holds, else 1 and why not.
// The checks of the make targets test-docker, test-install and test-system; each ends what it starts.

import { Runtime } from '../../examples/demo/client.mjs';

const EMULATED = 600_000; // ms; a minute for a fork bomb in an idle emulated machine, many on a busy one

const MEMORY_HOG = 'import sys\nblocks = []\nwhile True:\n    blocks.append(bytearray(16 << 20))\n';

const bash = (runtime, script) => runtime.spawn('shell', 'bash', ['-c', script], { pty: false });
const exitOf = (runtime, pid) =>
  runtime.when(pid, 'an exit', (events) => events.find((event) => event.type === 'exit'));

function expect(actual, expected, what) {
  if (actual !== expected) throw new Error(`${what}: ${actual} instead of ${expected}`);
}

const checks = {
  /** The tier programs run in. */
  async tier(runtime, expected) {
    const { isolation, config } = await runtime.request('status');
    expect(isolation.tier, expected, 'tier');
    return `${config.sandboxMode} ${isolation.tier}: ${isolation.layers.join(' ')}`;
  },

  /** All process types can be spawned, with or without OpenClaw. The service looks when it starts, and asks again what a busy machine kept from answering. */
  async tools(runtime, openclaw) {
    for (const deadline = Date.now() + EMULATED; ; await new Promise((resolve) => setTimeout(resolve, 1000))) {
      const { tools } = await runtime.request('status');
      const missing = tools.filter((tool) => !tool.available && (tool.type !== 'openclaw' || openclaw === 'openclaw'));
      if (missing.length === 0) return tools.map((tool) => `${tool.type} ${tool.version ?? '-'}`).join(', ');
      const passing = missing.every((tool) => /it is asked again|not been looked for yet/.test(tool.problem));
      if (!passing || Date.now() > deadline) throw new Error(JSON.stringify(missing));
    }
  },

  /** Programs are of this architecture, as Node.js and as Python call it. */
  async machine(runtime, node, python) {
    const asked = [
      [node, await runtime.spawn('node', '-p', ['process.arch'], { pty: false })],
      [python, await runtime.spawn('python', '-c', ['import platform; print(platform.machine())'], { pty: false })],
    ];
    for (const [expected, pid] of asked) expect((await runtime.outputOf(pid)).trim(), expected, 'architecture');
    return `${node}, ${python}`;
  },

  /** A program that takes all memory it can get is ended, its end says why, and the service goes on. */
  async memory(runtime) {
    const neighbour = await bash(runtime, 'read line; echo "$line"');
    const hog = await runtime.spawn('python', '-c', [MEMORY_HOG], { pty: false });
    const exit = await exitOf(runtime, hog);
    expect(exit.reason, 'memory', `reason of ${JSON.stringify(exit)}`);
    await runtime.write(neighbour, 'unharmed\n');
    expect(await runtime.firstLine(neighbour), 'unharmed', 'the neighbour says');
    return `ended with reason ${exit.reason}`;
  },

  /** A program that forks without end does not take the service along, and can be ended with all it has started. */
  async forks(runtime) {
    const bomb = await bash(runtime, 'f() { f | f & }; f; wait; sleep 1000');
    await runtime.when(bomb, 'its limit', (events) =>
      events.find((event) => event.type === 'exit' || /unavailable|retry/i.test(event.data ?? '')), EMULATED);
    const after = await bash(runtime, 'echo still here');
    expect(await runtime.firstLine(after), 'still here', 'another program says');
    // On a busy machine the answer may be that it takes longer; any other refusal is a failure, unless a limit ended it first.
    const refused = await runtime.request('kill', { pid: bomb, signal: 'SIGKILL' }).then(() => '', (error) => error.message);
    const { reason } = await exitOf(runtime, bomb);
    if (refused !== '' && reason === 'killed' && !refused.endsWith('this goes on')) throw new Error(`kill: ${refused}`);
    for (const deadline = Date.now() + 60_000; ; await new Promise((resolve) => setTimeout(resolve, 100))) {
      const { processes } = await runtime.request('list', { all: true });
      const left = processes.find((process) => process.pid === bomb)?.lingering ?? [];
      if (left.length === 0) break;
      if (Date.now() > deadline) throw new Error(`left of it: ${JSON.stringify(left)}`);
    }
    return `another program ran meanwhile; it ended with reason ${reason}${refused && `, late: ${refused}`}, and nothing is left of it`;
  },

  /** Writes a file of the workspace. */
  async write(runtime, name, content) {
    await runtime.outputOf(await bash(runtime, `printf %s '${content}' > '${name}'`));
    return `${name} written`;
  },

  /** Reads a file of the workspace. */
  async read(runtime, name, content) {
    expect(await runtime.outputOf(await bash(runtime, `cat '${name}'`)), content, name);
    return `${name} is as it was written`;
  },

  /** Starts a program that, when asked to end, takes two seconds and writes a file, and leaves it running. */
  async slow(runtime, name) {
    const script = `trap 'sleep 2; echo orderly > ${name}; exit 0' TERM; echo ready; while :; do sleep 0.1; done`;
    expect(await runtime.firstLine(await bash(runtime, script)), 'ready', 'the program says');
    runtime.leave();
    return 'running';
  },

  /** OpenClaw's gateway answers inside, and is left running. */
  async gateway(runtime) {
    const gateway = await runtime.spawn('openclaw', 'gateway');
    const python = `
import sys, time, urllib.request
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
for _ in range(600):
    try:
        print(direct.open("http://127.0.0.1:18789/health", timeout=5).read().decode()); sys.exit(0)
    except OSError:
        time.sleep(0.2)
sys.exit("the gateway did not answer")`;
    const asking = await runtime.spawn('python', '-c', [python], { pty: false });
    const ended = exitOf(runtime, gateway).then((exit) => Promise.reject(new Error(`it ended: ${JSON.stringify(exit)}`)));
    const answer = await Promise.race([runtime.outputOf(asking), ended]);
    runtime.leave();
    return answer.trim();
  },

  /** A program that was started before is still there. */
  async running(runtime, count) {
    const { processes } = await runtime.request('list');
    const running = processes.filter((process) => process.status === 'running');
    expect(running.length, Number(count), 'running programs');
    return `${running.length} running`;
  },
};

const [address, name, ...rest] = process.argv.slice(2);
if (!checks[name]) {
  console.error(`usage: node check.mjs ADDRESS ${Object.keys(checks).join('|')} [ARGUMENTS]`);
  process.exit(2);
}
const runtime = await Runtime.connect(address);
try {
  console.log(`${name}: ${await checks[name](runtime, ...rest)}`);
} catch (error) {
  console.error(`${name}: FAILED: ${error.message}`);
  process.exitCode = 1;
}
await runtime.endAll();
runtime.close();
