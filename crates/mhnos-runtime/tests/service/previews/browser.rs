//! Previews in a real browser: the servers people use, unmodified, and what their pages can and cannot do.

use mhnos_testing::{Browser, Server, Tab, Wire, WireOptions, eventually_async, tools_dir};
use serde_json::{Value, json};

use super::{DEADLINE, opened};
use crate::start;

/// A service with the packages of the tests where a project has them, and a client.
async fn project() -> (Server, Wire) {
    let server = start();
    let packages = tools_dir().parent().expect("in node_modules").to_owned();
    for name in ["vite", "express"] {
        assert!(packages.join(name).is_dir(), "{name} is missing; to install it: deploy/tools/install test");
    }
    std::os::unix::fs::symlink(packages, server.workspace().join("node_modules")).expect("a link");
    let wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    (server, wire)
}

/// Starts a program; the address of its preview, and its pid.
async fn preview(wire: &mut Wire, spawn: Value) -> (String, u64) {
    let pid = wire.spawn(spawn).await;
    (opened(wire, pid).await["url"].as_str().expect("a url").to_owned(), pid)
}

/// Waits until an expression, evaluated in whatever page is there by then, has this value.
async fn until(tab: &mut Tab, expression: &str, expected: &str) {
    let mut last = Value::Null;
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while last != expected {
        assert!(tokio::time::Instant::now() < deadline, "{expression} is {last}, not {expected:?}");
        last = tab.evaluate(expression).await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_vite_server_replaces_a_module_of_a_page_in_use() {
    let (server, mut wire) = project().await;
    server
        .write("app/index.html", "<!doctype html><p id=text></p><script type=module src=/main.js></script>");
    server.write("app/message.js", "export const message = 'before';\n");
    server.write(
        "app/main.js",
        "import { message } from './message.js';\nconst show = text => document.querySelector('p').textContent = text;\n\
         show(message);\nimport.meta.hot.accept('./message.js', module => show(module.message));\n",
    );
    server.write(
        "app/serve.mjs",
        "import { createServer } from 'vite';\nconst server = await createServer({ configFile: false, cacheDir: '/tmp/vite' });\n\
         await server.listen();\n",
    );
    let spawn = json!({"processType": "node", "command": "serve.mjs", "options": {"cwd": "/app"}});
    let (url, _) = preview(&mut wire, spawn).await;
    let mut tab = Tab::open(&Browser::shared(), &url).await;
    until(&mut tab, "document.querySelector('p').textContent", "before").await;
    tab.evaluate("window.kept = 'yes'").await;
    // The page's socket to the server must be open before anything is worth telling through it.
    let mut round = 0;
    eventually_async(DEADLINE, "the module to be replaced", async || {
        round += 1;
        server.write("app/message.js", format!("export const message = 'after';\n// {round}\n"));
        let shown = tab.evaluate("document.querySelector('p').textContent").await;
        (shown == "after").then_some(())
    })
    .await;
    assert_eq!(tab.evaluate("window.kept").await, "yes", "the page was loaded again instead");
}

#[tokio::test]
async fn an_express_application_works_and_keeps_its_cookies() {
    let (server, mut wire) = project().await;
    server.write(
        "app.mjs",
        "import express from 'express';\nconst app = express();\napp.use(express.json());\n\
         app.get('/', (request, response) => response.cookie('seen', 'yes', { domain: 'localhost' }).send('<p>express</p>'));\n\
         app.post('/add', (request, response) => response.json({ sum: request.body.a + request.body.b, \
         cookie: request.headers.cookie, origin: request.headers.origin, host: request.headers.host }));\n\
         app.listen(0, '127.0.0.1');\n",
    );
    let (url, _) = preview(&mut wire, json!({"processType": "node", "command": "app.mjs"})).await;
    let (other, _) = preview(&mut wire, json!({"processType": "node", "command": "app.mjs"})).await;
    let mut tab = Tab::open(&Browser::shared(), &url).await;
    assert_eq!(tab.evaluate("document.body.textContent").await, "express");
    let post = "fetch('/add', { method: 'POST', headers: { 'content-type': 'application/json' }, \
                body: JSON.stringify({ a: 1, b: 2 }) }).then(answer => answer.json())";
    let answer = tab.evaluate(post).await;
    assert_eq!((&answer["sum"], &answer["cookie"]), (&json!(3), &json!("seen=yes")), "{answer}");
    assert_eq!(answer["origin"], json!(format!("http://{}", answer["host"].as_str().expect("a host"))));
    // The same person, another preview: nothing of the first one's is there.
    let mut beside = tab.open_beside(&format!("{other}missing")).await;
    assert_eq!(beside.evaluate("document.cookie").await, "");
}

#[tokio::test]
async fn python_and_workerd_serve_pages() {
    let (server, mut wire) = project().await;
    server.write("site/index.html", "<!doctype html><p>from python</p>");
    server.write(
        "worker.js",
        "export default { fetch(request) { return new Response('<p>worker at ' + new URL(request.url).pathname + '</p>',\
         { headers: { 'content-type': 'text/html' } }) } }\n",
    );
    let python = json!({"processType": "python", "command": "-m", "args": ["http.server", "0"], "options": {"cwd": "/site"}});
    for (spawn, path, text) in [
        (python, "", "from python"),
        (json!({"processType": "workerd", "command": "worker.js"}), "here", "worker at /here"),
    ] {
        let (url, _) = preview(&mut wire, spawn).await;
        let mut tab = Tab::open(&Browser::shared(), &format!("{url}{path}")).await;
        assert_eq!(tab.evaluate("document.body.textContent").await, text);
    }
}

#[tokio::test]
async fn a_page_that_waits_for_a_port_loads_by_itself() {
    let (server, mut wire) = project().await;
    server.write(
        "late.mjs",
        "import { createServer } from 'node:http';\nconst late = createServer((_, response) => {\n\
         response.setHeader('content-type', 'text/html');\nresponse.end('<p>it listens</p>'); });\n\
         createServer(() => {}).listen(0, '127.0.0.1');\n\
         process.stdin.once('data', port => late.listen(Number(port), '127.0.0.1'));\n",
    );
    let (url, pid) = preview(&mut wire, json!({"processType": "node", "command": "late.mjs"})).await;
    let free =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port();
    let first = url.split(['-', '.']).nth(1).expect("a port").to_owned();
    let later = url.replace(&format!("-{first}."), &format!("-{free}."));
    let mut tab = Tab::open(&Browser::shared(), &later).await;
    assert_eq!(tab.evaluate("document.title").await, format!("Waiting for port {free}"));
    wire.send(&json!({"type": "write", "pid": pid, "data": format!("{free}\n")})).await;
    until(&mut tab, "document.body?.textContent", "it listens").await;
}

#[tokio::test]
async fn a_previews_page_reaches_neither_the_service_nor_another_preview() {
    let (server, mut wire) = project().await;
    server.write(
        "app.mjs",
        "import { createServer } from 'node:http';\ncreateServer((request, response) => {\n\
         response.setHeader('content-type', 'text/html');\nresponse.setHeader('access-control-allow-origin', '*');\n\
         response.end('<p>open</p>'); }).listen(0, '127.0.0.1');\n",
    );
    let (own, _) = preview(&mut wire, json!({"processType": "node", "command": "app.mjs"})).await;
    let (other, _) = preview(&mut wire, json!({"processType": "node", "command": "app.mjs"})).await;
    let mut tab = Tab::open(&Browser::shared(), &own).await;
    let service = format!("ws://localhost:{}/", server.address().port());
    let socket = |url: &str| {
        format!(
            "new Promise(done => {{ const s = new WebSocket({}); s.onopen = () => done('open'); s.onerror = () => done('refused'); }})",
            json!(url)
        )
    };
    let fetch = |url: &str| format!("fetch({}).then(answer => answer.text(), () => 'refused')", json!(url));
    assert_eq!(tab.evaluate(&socket(&service)).await, "refused");
    assert_eq!(tab.evaluate(&socket(&other.replace("http:", "ws:"))).await, "refused");
    assert_eq!(tab.evaluate(&fetch(&other)).await, "refused");
    let image = format!(
        "new Promise(done => {{ const s = document.createElement('script'); s.onload = () => done('run'); \
         s.onerror = () => done('refused'); s.src = {}; document.head.append(s); }})",
        json!(other)
    );
    assert_eq!(tab.evaluate(&image).await, "refused");
    // The controls: its own is reached, and so is the other's by its own page.
    assert_eq!(tab.evaluate(&fetch(&own)).await, "<p>open</p>");
    let mut beside = tab.open_beside(&other).await;
    assert_eq!(beside.evaluate(&fetch(&other)).await, "<p>open</p>");
}
