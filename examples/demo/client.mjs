// A whole client of the protocol, without a dependency: requests answered by id, output and exits by process.

export const DEADLINE = 120_000; // ms; nothing here takes that long

/** One connection. Requests are answered by id; output and exits are kept for each process until somebody asks. */
export class Runtime {
  /** `protocols`: more to ask for, for instance a token. */
  static connect(address, protocols = []) {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(address, ['mhnos.v1', ...protocols]);
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

  /** From now on nothing of what was started is this connection's to end. */
  leave() {
    this.#started.clear();
  }

  /** Ends what this connection has started and what has not ended by itself. */
  async endAll() {
    for (const pid of this.#started) await this.kill(pid).catch(() => {}); // it may have ended meanwhile
  }

  /** Resolves with what `find` makes of the events of a process so far, as soon as that is something. */
  when(pid, what, find, deadline = DEADLINE) {
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
    return within(deadline, what, found);
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

export function text(events, stream = 'stdout') {
  return events.filter((event) => event.type === stream).map((event) => event.data).join('');
}

/** The promise's outcome, or an error when it takes longer. */
export function within(milliseconds, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} within ${milliseconds / 1000} s`)), milliseconds);
    timer.unref(); // the connection keeps the program waiting, and nothing beyond it
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
