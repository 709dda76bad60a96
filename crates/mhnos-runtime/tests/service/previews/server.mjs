// What previews are tested with: a server whose paths do what their names say. `release` lets what waits go on.
import { once } from 'node:events';
import { createServer } from 'node:http';

let waiting = [];
// A prime's length: what is doubled, lost or exchanged in pieces of any usual size does not fit.
const block = Buffer.from(Uint8Array.from({ length: 1_000_003 }, (_, i) => Math.imul(i, 2654435761) >>> 16));
let given = 0;
const server = createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, 'http://x');
  if (pathname === '/release') {
    waiting.splice(0).forEach(go => go());
    return response.end('released');
  }
  if (pathname === '/chunks' || pathname === '/events') {
    const type = pathname === '/events' ? 'text/event-stream' : 'text/plain';
    response.writeHead(200, { 'content-type': type });
    response.write('data: first\n\n');
    await new Promise(go => waiting.push(go));
    return response.end('data: second\n\n');
  }
  if (pathname === '/given') return response.end(`${given}`);
  if (pathname === '/big' && request.method === 'GET') {
    const bytes = Number(searchParams.get('bytes'));
    response.writeHead(200, { 'content-length': bytes });
    for (given = 0; given < bytes && !response.destroyed;) {
      const piece = block.subarray(0, bytes - given);
      given += piece.length;
      if (!response.write(piece)) await Promise.race([once(response, 'drain'), once(response, 'close')]);
    }
    return response.end();
  }
  if (pathname === '/big') {
    let bytes = 0, same = true;
    for await (let chunk of request) {
      while (chunk.length) {
        const at = bytes % block.length;
        const expected = block.subarray(at, at + chunk.length);
        same &&= expected.equals(chunk.subarray(0, expected.length));
        bytes += expected.length;
        chunk = chunk.subarray(expected.length);
      }
    }
    return response.end(`${bytes} ${same}.`);
  }
  if (pathname === '/mirror') {
    response.writeHead(200, { 'content-type': 'application/octet-stream' });
    return request.pipe(response);
  }
  if (pathname === '/close') {
    response.end('closing', () => request.socket.end());
    return;
  }
  if (pathname === '/rewritten') {
    response.writeHead(302, {
      location: `http://localhost:${server.address().port}/there`,
      'set-cookie': ['a=b; Domain=localhost; Path=/', 'c=d'],
    });
    return response.end();
  }
  let bytes = 0;
  for await (const chunk of request) bytes += chunk.length;
  const { method, url, headers } = request;
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify({ method, url, headers, bytes }));
});
server.on('upgrade', (request, socket, head) => {
  socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: mirror\r\n\r\nwelcome ');
  socket.write(head);
  socket.pipe(socket);
});
setTimeout(() => server.listen(Number(process.argv[2] ?? 0), '127.0.0.1'), Number(process.argv[3] ?? 0));
