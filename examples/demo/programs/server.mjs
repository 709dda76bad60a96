// An HTTP server on the sandbox's own localhost. Where the sandbox has no network of its own (tiers T3+ and T3), programs
// connect to a list of ports only, those of development servers; so it takes the first free one of 3000 to 3031.
import { createServer } from 'node:http';

const FIRST = 3000;
const LAST = 3031;

const server = createServer((request, response) => {
  response.end(`Node.js ${process.version} says hello to ${request.headers['user-agent'] ?? 'somebody unnamed'}\n`);
});
server.on('listening', () => console.log(`http://127.0.0.1:${server.address().port}/`));

function listen(port) {
  server.once('error', (error) => {
    if (error.code !== 'EADDRINUSE' || port === LAST) throw error;
    listen(port + 1);
  });
  server.listen(port, '127.0.0.1');
}
listen(FIRST);
