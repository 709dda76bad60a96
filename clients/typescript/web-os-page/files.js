// The page's file system (OPFS) and its push and pull, as the Web OS does them (27–29).

/** Entries of one push message. */
const BATCH = 5;
/** What a push passes over, besides names that begin with a dot. */
const SKIPPED = new Set(["node_modules", ".git", "dist", ".cache"]);

async function directory(path, create = false) {
  let at = await navigator.storage.getDirectory();
  for (const name of path.split("/").filter(Boolean)) at = await at.getDirectoryHandle(name, { create });
  return at;
}

/** Writes a file, with the directories above it. `content`: bytes. */
export async function write(path, content) {
  const names = path.split("/").filter(Boolean);
  const name = names.pop();
  const parent = await directory(names.join("/"), true);
  const handle = await parent.getFileHandle(name, { create: true });
  const file = await handle.createWritable();
  await file.write(content);
  await file.close();
}

export async function makeDirectory(path) {
  await directory(path, true);
}

/** A file's bytes as an array of numbers. */
export async function read(path) {
  const names = path.split("/").filter(Boolean);
  const name = names.pop();
  const handle = await (await directory(names.join("/"))).getFileHandle(name);
  return Array.from(new Uint8Array(await (await handle.getFile()).arrayBuffer()));
}

/** Empties the file system. */
export async function clear() {
  const root = await directory("/");
  for await (const name of root.keys()) await root.removeEntry(name, { recursive: true });
}

/** Everything beneath a directory as a push sends it; the directory itself is not listed. */
async function collect(path) {
  const entries = [];
  const handles = [];
  for await (const entry of (await directory(path)).entries()) handles.push(entry);
  handles.sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [name, handle] of handles) {
    if (name.startsWith(".") || SKIPPED.has(name)) continue;
    const inside = `${path === "/" ? "" : path}/${name}`;
    if (handle.kind === "directory") {
      entries.push({ path: inside, kind: "directory" }, ...(await collect(inside)));
    } else {
      const file = await handle.getFile();
      const content = Array.from(new Uint8Array(await file.arrayBuffer()));
      entries.push({ path: inside, kind: "file", content, mtime: file.lastModified });
    }
  }
  return entries;
}

/** Pushes a directory, five entries a message, each awaited; says what the user is told. */
export async function push(bridge, path = "/") {
  const entries = await collect(path);
  let pushed = 0;
  const said = [];
  for (let at = 0; at < entries.length; at += BATCH) {
    const files = entries.slice(at, at + BATCH);
    try {
      await bridge.request({ type: "fsync", operation: "push", files });
      pushed += files.length; // (28): `results` is not looked at
    } catch (error) {
      said.push(error.message);
    }
  }
  return [...said, `Pushed ${pushed}/${entries.length}`];
}

/** Pulls everything; says what the user is told. */
export async function pull(bridge) {
  const { files = [] } = await bridge.request({ type: "fsync", operation: "pull" });
  for (const { path, kind, content } of files) {
    // (29): anything but an array of numbers becomes an empty file.
    if (kind === "directory") await makeDirectory(path);
    else await write(path, new Uint8Array(Array.isArray(content) ? content : []));
  }
  return [`Pulled ${files.length}/${files.length}`];
}
