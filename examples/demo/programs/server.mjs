// An HTTP server on a free port of the sandbox's own localhost.
import { createServer } from 'node:http';

const server = createServer((request, response) => {
  response.end(`Node.js ${process.version} says hello to ${request.headers['user-agent']}\n`);
});
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}/`));
