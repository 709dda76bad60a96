// A worker as workerd runs it: a module that exports `fetch`.
export default {
  async fetch(request) {
    const { pathname } = new URL(request.url);
    const who = request.headers.get('user-agent') ?? 'somebody unnamed';
    return new Response(`workerd answers ${request.method} ${pathname} to ${who}\n`);
  },
};
