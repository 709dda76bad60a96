// The desktop: a HUD that takes commands and draws lines, and terminal windows. It is driven from outside through
// `window.os`: `os.command(line)` is what a person types into the HUD; the windows get real key events.

import { FitAddon } from "@xterm/addon-fit";
import { Unicode11Addon } from "@xterm/addon-unicode11";
import { Terminal } from "@xterm/xterm";

import { Bridge } from "./bridge.js";
import * as files from "./files.js";

/** From the opening of a terminal window to its real size (24). */
const FIT_DELAY = 150;
/** How long a test waits for something; reached on failure only. */
const UNTIL_TIMEOUT = 40_000;
/** What one process type is called in the HUD. */
const TYPES = new Set(["node", "python", "workerd", "openclaw"]);

const changes = new EventTarget();
const changed = () => changes.dispatchEvent(new Event("change"));
const bridge = new Bridge(new URLSearchParams(location.search).get("runtime"));
bridge.addEventListener("change", changed);
bridge.addEventListener("message", ({ detail }) => draw(detail));

const hud = document.getElementById("hud");
/** The pid whose output the HUD shows; while it is set the HUD takes no commands. */
let caught = null;

/** One frame or message is one line of the HUD (22). */
function draw(text, kind = "info") {
  const line = document.createElement("div");
  line.className = kind;
  line.textContent = text;
  hud.append(line);
  hud.scrollTop = hud.scrollHeight;
  changed();
}

class TerminalWindow {
  ended = false;
  closed = false;

  constructor(pid) {
    this.pid = pid;
    this.element = document.createElement("article");
    this.element.className = "window";
    this.element.innerHTML = "<header></header><div></div>";
    this.element.firstChild.textContent = `Process ${pid}`;
    const offset = 20 * (windows.length % 8) + 20;
    this.element.style.left = this.element.style.top = `${offset}px`;
    document.getElementById("desktop").append(this.element);
    this.terminal = new Terminal({
      cols: 80,
      rows: 24,
      allowProposedApi: true,
      convertEol: true,
      scrollback: 5000,
      fontFamily: '"DejaVu Sans Mono", monospace',
      fontSize: 14,
    });
    this.fit = new FitAddon();
    this.terminal.loadAddon(this.fit);
    this.terminal.loadAddon(new Unicode11Addon());
    this.terminal.unicode.activeVersion = "11";
    this.terminal.open(this.element.lastChild);
    this.terminal.onData((data) => bridge.send({ type: "write", pid, data })); // (24): a key, or a whole paste
    this.terminal.onResize(({ cols, rows }) => bridge.send({ type: "resize", pid, cols, rows }));
    this.terminal.onWriteParsed(changed);
    // (20): what comes of the attach is not shown.
    bridge.attach(pid, this).catch(() => {});
    bridge.send({ type: "resize", pid, cols: 80, rows: 24 }); // (24): at once, before `attached`
    setTimeout(() => {
      if (this.closed) return;
      this.fit.fit();
      this.fitted = true;
      changed();
    }, FIT_DELAY);
    this.terminal.focus();
  }

  output(stream, data) {
    this.terminal.write(stream === "stderr" ? `\x1b[31m${data}\x1b[0m` : data); // (23)
  }

  exit(code, signal) {
    this.ended = true;
    this.terminal.write(`\r\n[Process exited with code ${code}, signal ${signal}]\r\n`); // (21)
  }

  close() {
    this.closed = true;
    bridge.detach(this.pid, this);
    this.terminal.dispose();
    this.element.remove();
    changed();
  }

  /** What stands on the screen and in the scrollback, without blanks at the ends of lines. */
  get text() {
    const { active } = this.terminal.buffer;
    const lines = [];
    for (let at = 0; at < active.length; at += 1) {
      const line = active.getLine(at);
      const text = line.translateToString(true);
      if (line.isWrapped) lines[lines.length - 1] += text;
      else lines.push(text);
    }
    return lines.join("\n").trimEnd();
  }
}

const windows = [];

const hudViewer = {
  output: (stream, data) => draw(data, stream),
  exit(code, signal) {
    caught = null;
    draw(`[Process exited with code ${code}, signal ${signal}]`);
  },
};

/** The commands of the HUD that begin with `runtime`. */
const commands = {
  async list() {
    const { processes } = await bridge.request({ type: "list" });
    return processes.map(({ pid, type, command, status }) => `${pid} ${type} ${command ?? "-"} ${status}`);
  },
  async status() {
    const { config, stats } = await bridge.request({ type: "status" });
    return [
      `sandbox ${config.sandboxMode}, OpenClaw ${config.allowOpenClaw}`,
      `spawned ${stats.totalSpawned}, active ${stats.active}`,
    ];
  },
  async ping() {
    const begin = performance.now();
    await bridge.request({ type: "ping" });
    return [`pong after ${Math.round(performance.now() - begin)} ms`];
  },
  async kill(pid) {
    await bridge.kill(Number.parseInt(pid, 10));
    return [`Killed ${pid}`];
  },
  async attach(text) {
    const pid = Number.parseInt(text, 10);
    if (!bridge.processes.has(pid)) throw new Error(`No process ${text}`); // (18)
    caught = pid;
    bridge.attach(pid, hudViewer).catch(() => {}); // (20)
    return [`Attached to ${pid}`];
  },
  async disconnect() {
    bridge.disconnect();
    return [];
  },
  push: (path = "/") => files.push(bridge, path),
  pull: () => files.pull(bridge),
  async s3status() {
    await bridge.request({ type: "s3status" });
    return [];
  },
};

/** `cwd` of the HUD: a directory of the page's file system (12). */
let cwd = "/";

async function perform(line) {
  const [word, ...rest] = line.split(" "); // (11): no quoting
  if (word === "cd") {
    [cwd] = rest;
    return [];
  }
  if (word === "rshell") {
    const pid = await bridge.spawn("shell", "/bin/bash", [], { cwd });
    windows.push(new TerminalWindow(pid));
    return [`Shell ${pid}`];
  }
  if (word === "window") {
    windows.push(new TerminalWindow(Number.parseInt(rest[0], 10)));
    return [];
  }
  if (word !== "runtime") throw new Error(`Unknown command ${word}`);
  const [name, ...args] = rest;
  if (!TYPES.has(name)) return commands[name](...args);
  const [command, ...others] = args;
  const options = name === "openclaw" ? { cwd, env: { OPENCLAW_WORKSPACE: cwd } } : { cwd };
  const pid = await bridge.spawn(name, name === "openclaw" ? (command ?? "gateway") : command, others, options);
  return [`Started ${pid}`];
}

/** Runs what a person types into the HUD. Gives the lines it draws; an error is drawn red and given as text. */
async function command(line) {
  if (caught !== null) throw new Error(`the HUD's input is caught by process ${caught}`);
  draw(`> ${line}`, "command");
  try {
    const lines = await perform(line);
    lines.forEach((text) => draw(text));
    return lines;
  } catch (error) {
    draw(error.message, "error");
    return [`ERROR ${error.message}`];
  }
}

/** What can be seen, and the last frames: for whoever looks into a failure. */
function scene() {
  const screens = windows.map((window) => `--- window of ${window.pid}\n${window.text.slice(-2000)}`);
  const lines = [...hud.children].slice(-30).map(({ className, textContent }) => `${className}: ${textContent}`);
  const frames = bridge.frames.slice(-30).map((frame) => JSON.stringify(frame).slice(0, 300));
  return [...screens, "--- HUD", ...lines, "--- frames", ...frames].join("\n");
}

/** Waits until `check` gives something true, looking after everything that happens. */
function until(check) {
  return new Promise((resolve, reject) => {
    const end = (settle, value) => {
      clearTimeout(timer);
      changes.removeEventListener("change", look);
      settle(value);
    };
    const look = () => {
      const found = check();
      if (found) end(resolve, found);
    };
    const timer = setTimeout(() => end(reject, new Error(`never: ${check}\n${scene()}`)), UNTIL_TIMEOUT);
    changes.addEventListener("change", look);
    look();
  });
}

/** Pastes as the browser does, through the terminal's own handler. */
function paste(index, text) {
  const clipboardData = new DataTransfer();
  clipboardData.setData("text/plain", text);
  const target = windows[index].terminal.textarea;
  target.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
}

window.os = {
  bridge,
  files,
  windows,
  command,
  until,
  paste,
  get caught() {
    return caught;
  },
  /** The HUD's lines, each with its kind. */
  get hud() {
    return Array.from(hud.children, ({ className, textContent }) => ({ kind: className, text: textContent }));
  },
};
bridge.connect();
