// A server that answers with what is no HTTP: the path says which kind.
import { createServer } from 'node:net';

const answers = {
  '/garbage': socket => socket.end('\0\x01\x02 what\r\n\r\n'),
  '/nothing': socket => socket.end(),
  '/huge': socket => socket.end(`HTTP/1.1 200 OK\r\nx: ${'y'.repeat(1 << 20)}\r\n\r\n`),
  '/many': socket => socket.end(`HTTP/1.1 200 OK\r\n${'x: y\r\n'.repeat(5000)}\r\n`),
  '/endless': socket => {
    const more = () => { while (socket.writable && socket.write('x: ' + 'y'.repeat(1000) + '\r\n')); };
    socket.write('HTTP/1.1 200 OK\r\n');
    socket.on('drain', more);
    more();
  },
  '/short': socket => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort'),
  '/two-lengths': socket => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab'),
  '/unasked': socket => socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n'),
};
const server = createServer(socket => {
  socket.on('error', () => {});
  socket.once('data', data => {
    const path = String(data).split(' ')[1];
    (answers[path] ?? (socket => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine')))(socket);
  });
});
server.listen(0, '127.0.0.1');
