// The Web OS's side of the connection, as its recorded frames show it. It is kept as narrow as the original on
// purpose: what the original cannot do must not work here either. The numbers are the points of docs/web-os.md.

/** Every id must be answered within this (7). */
const REQUEST_TIMEOUT = 30_000;
/** The socket must open within this (2). */
const OPEN_TIMEOUT = 5_000;
/** From a close to the next attempt, for ever (4). */
const RECONNECT_DELAY = 5_000;
/** A request is resolved by a frame of these types only, whichever it is (8). */
const RESOLVING = new Set(["spawned", "attached", "killed", "processList", "status", "error"]);

/**
 * Fires "change" after everything that happens, "message" with a line for the HUD.
 * `frames` records every frame in the order sent and received.
 */
export class Bridge extends EventTarget {
  /** pid → {type, command, viewers: Set of {output(stream, data), exit(code, signal)}} */
  processes = new Map();
  frames = [];
  opened = 0;
  #pending = new Map();
  #requests = 0;
  #socket = null;

  constructor(url) {
    super();
    this.url = url;
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  connect() {
    const socket = new WebSocket(this.url); // (2): no subprotocol
    this.#socket = socket;
    const late = setTimeout(() => socket.close(), OPEN_TIMEOUT);
    socket.onopen = () => {
      clearTimeout(late);
      this.opened += 1;
      this.#changed();
    };
    socket.onmessage = ({ data }) => {
      if (typeof data !== "string") return; // (3)
      const frame = JSON.parse(data);
      this.frames.push({ receive: frame });
      this.#received(frame);
      this.#changed();
    };
    socket.onclose = () => {
      clearTimeout(late);
      this.processes.clear(); // (4)
      this.#say("[Runtime] Disconnected");
      setTimeout(() => this.connect(), RECONNECT_DELAY);
      this.#changed();
    };
  }

  /** `runtime disconnect`; it comes back all the same (4). */
  disconnect() {
    this.#socket?.close();
  }

  /** Sends a frame that has no answer (6). */
  send(frame) {
    this.frames.push({ send: frame });
    this.#socket.send(JSON.stringify(frame));
    this.#changed();
  }

  /** Sends a request; rejects with the text that the user is shown (7, 9). */
  request(frame) {
    this.#requests += 1;
    const id = `req-${this.#requests}`;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(new Error(`Request timeout after ${REQUEST_TIMEOUT}ms`));
      }, REQUEST_TIMEOUT);
      this.#pending.set(id, { resolve, reject, timer });
      const { type, ...fields } = frame;
      this.send({ type, id, ...fields });
    });
  }

  async spawn(processType, command, args, options) {
    const { pid } = await this.request({ type: "spawn", processType, command, args, options });
    this.processes.set(pid, { type: processType, command, viewers: new Set() });
    this.#changed();
    return pid;
  }

  /** Adds a viewer and asks for the replay, each time (17). */
  attach(pid, viewer) {
    this.processes.get(pid)?.viewers.add(viewer);
    return this.request({ type: "attach", pid });
  }

  detach(pid, viewer) {
    this.processes.get(pid)?.viewers.delete(viewer);
    this.send({ type: "detach", pid }); // (6): no id
  }

  async kill(pid) {
    await this.request({ type: "kill", pid, signal: "SIGTERM" });
    this.processes.delete(pid); // (26): an exit that comes later is lost
    this.#changed();
  }

  #received(frame) {
    const pending = this.#pending.get(frame.id);
    if (pending && RESOLVING.has(frame.type)) {
      this.#pending.delete(frame.id);
      clearTimeout(pending.timer);
      if (frame.type === "error") pending.reject(new Error(frame.error));
      else pending.resolve(frame);
      return;
    }
    const viewers = this.processes.get(frame.pid)?.viewers; // (15, 17): dropped without one
    switch (frame.type) {
      case "connected":
        this.#say(`[Runtime] Protocol v${frame.protocolVersion}`); // (1)
        break;
      case "stdout":
      case "stderr":
        if (frame.data.length > 0) viewers?.forEach((viewer) => viewer.output(frame.type, frame.data)); // (22)
        break;
      case "exit":
        this.processes.delete(frame.pid); // (18)
        viewers?.forEach((viewer) => viewer.exit(frame.code, frame.signal));
        break;
      default: // (3, 8): everything else is ignored, `pong`, `fsyncResult` and `detached` too
    }
  }

  #say(text) {
    this.dispatchEvent(new CustomEvent("message", { detail: text }));
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
