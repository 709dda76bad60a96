//! A request through a preview, beside the same request to the same server directly and through the proxy of npm that
//! people would put in front of it; and what it costs to know who listens.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use mhnos_testing::{Server, Wire, WireOptions, tool, tools_dir};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{median, percentiles, report, start};

const WARM_UP: usize = 300;
const ROUNDS: usize = 5_000;
const CONNECTIONS: usize = 1_000;
const DOWNLOAD: usize = 1 << 30;
const DOWNLOADS: usize = 5;
const PORTS: usize = 200;
const SERVERS: usize = 50;
/// The first looks whether a port is still open come closer together.
const SETTLED: Duration = Duration::from_secs(5);
/// Together with [`SETTLED`] less than a client may leave pings unanswered.
const IDLE: Duration = Duration::from_secs(20);

/// Answers `ok`, or `/big` with a gibibyte. Says its port.
const SERVER: &str = "const block = Buffer.alloc(65536, 7);
const server = require('http').createServer(async (request, response) => {
  if (request.url !== '/big') return response.end('ok');
  response.writeHead(200, { 'content-length': 1 << 30 });
  for (let sent = 0; sent < 1 << 30; sent += block.length) if (!response.write(block)) await new Promise(go => response.once('drain', go));
  response.end();
}).listen(0, '127.0.0.1', () => console.log(server.address().port));
server.keepAliveTimeout = 600000;";

/// A program outside ends with the bench, however that ends.
const ENDS_WITH_US: &str = "process.stdin.resume().on('end', () => process.exit());";

/// Passes everything on to the port it is told, with connections that stay.
const PEER: &str = "const agent = new (require('http').Agent)({ keepAlive: true, maxSockets: 2000 });
const proxy = require('http-proxy').createProxyServer({ target: 'http://127.0.0.1:' + process.argv[1], agent });
const server = require('http').createServer((request, response) => proxy.web(request, response))
  .listen(0, '127.0.0.1', () => console.log(server.address().port));
server.keepAliveTimeout = 600000;";

/// A node program outside, until it is dropped.
struct Outside(Child);

impl Outside {
    fn start(source: &str, argument: &str) -> (Self, SocketAddr) {
        let packages = tools_dir().parent().expect("in node_modules").to_owned();
        let mut child = Command::new(tool("node"))
            .args(["-e", &format!("{source}\n{ENDS_WITH_US}"), argument])
            .env("NODE_PATH", packages)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node");
        let mut line = Vec::new();
        let mut said = child.stdout.take().expect("piped");
        let mut byte = [0];
        while said.read(&mut byte).expect("it speaks") == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        let port: u16 = String::from_utf8(line).expect("text").trim().parse().expect("a port");
        (Self(child), ([127, 0, 0, 1], port).into())
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What any second hop costs here: two threads a connection, each of which reads and writes and understands nothing.
fn relay(target: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    // They end with the bench.
    thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let far = TcpStream::connect(target).expect("it listens");
            for stream in [&near, &far] {
                stream.set_nodelay(true).expect("ours");
            }
            let back = (far.try_clone().expect("a copy"), near.try_clone().expect("a copy"));
            for (from, to) in [(near, far), back] {
                thread::spawn(move || carry(from, to));
            }
        }
    });
    address
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 256 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    _ = to.shutdown(Shutdown::Write);
}

/// The same by the runtime that the service uses: tasks on as many threads as there are processors.
fn async_relay(target: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    listener.set_nonblocking(true).expect("ours");
    thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("in a runtime");
            let mut carrying = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                carrying.spawn(async move {
                    let mut far = tokio::net::TcpStream::connect(target).await.expect("it listens");
                    for stream in [&near, &far] {
                        stream.set_nodelay(true).expect("ours");
                    }
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
    });
    address
}

/// A way to the same server.
struct Way {
    name: &'static str,
    address: SocketAddr,
    host: String,
}

struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Way {
    fn connect(&self, path: &str) -> Connection {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_nodelay(true).expect("ours");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host).into_bytes();
        Connection { stream, request, buffer: vec![0; 256 * 1024] }
    }
}

impl Connection {
    fn ask(&mut self) -> Duration {
        let begun = Instant::now();
        self.stream.write_all(&self.request).expect("it reads");
        let mut filled = 0;
        while !self.buffer[..filled].ends_with(b"ok") && !self.buffer[..filled].ends_with(b"0\r\n\r\n") {
            let read = self.stream.read(&mut self.buffer[filled..]).expect("it answers");
            assert!(read > 0, "it ended: {}", String::from_utf8_lossy(&self.buffer[..filled]));
            filled += read;
        }
        assert!(self.buffer.starts_with(b"HTTP/1.1 200"));
        begun.elapsed()
    }

    /// Bytes a second.
    fn download(&mut self) -> f64 {
        let begun = Instant::now();
        self.stream.write_all(&self.request).expect("it reads");
        let mut got = 0;
        let mut head = None;
        while head.is_none_or(|head| got < head + DOWNLOAD) {
            let read = self.stream.read(&mut self.buffer).expect("it answers");
            assert!(read > 0, "cut short");
            if head.is_none() {
                let end = self.buffer[..read]
                    .windows(4)
                    .position(|end| end == b"\r\n\r\n")
                    .expect("a head at once");
                head = Some(end + 4);
            }
            got += read;
        }
        assert_eq!(got, head.expect("read") + DOWNLOAD);
        DOWNLOAD as f64 / begun.elapsed().as_secs_f64()
    }
}

async fn ways() -> (Server, Wire, Vec<Outside>, Vec<Way>) {
    let server = start();
    server.write("server.cjs", SERVER);
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let pid = wire.spawn(json!({"processType": "node", "command": "server.cjs"})).await;
    let told = wire.next_where(|message| message["type"] == "port" && message["pid"] == pid).await;
    let host = told["url"].as_str().expect("a url")["http://".len()..].trim_end_matches('/').to_owned();
    let mut outside = Vec::new();
    // A server of its own for each way: what answers twice as often would be warmer, in its compiler and in the caches.
    let mut another = || {
        let (child, address) = Outside::start(SERVER, "");
        outside.push(child);
        address
    };
    let address = another();
    let mut ways = vec![
        Way { name: "direct", address, host: address.to_string() },
        Way { name: "preview", address: server.address(), host },
    ];
    for (name, through) in
        [("relay of threads", relay(another())), ("relay of tasks", async_relay(another()))]
    {
        ways.push(Way { name, address: through, host: through.to_string() });
    }
    if tools_dir().parent().is_some_and(|packages| packages.join("http-proxy").is_dir()) {
        let target = another();
        let (peer, through) = Outside::start(PEER, &target.port().to_string());
        outside.push(peer);
        ways.push(Way { name: "http-proxy (npm)", address: through, host: through.to_string() });
    } else {
        report("preview: http-proxy", "not installed: deploy/tools/install test");
    }
    (server, wire, outside, ways)
}

pub(crate) async fn requests() {
    let (_server, _wire, _outside, ways) = ways().await;
    let mut connections: Vec<_> = ways.iter().map(|way| way.connect("/")).collect();
    let mut times = vec![Vec::new(); ways.len()];
    for round in 0..WARM_UP + ROUNDS {
        for (connection, times) in connections.iter_mut().zip(&mut times) {
            let time = connection.ask();
            if round >= WARM_UP {
                times.push(time);
            }
        }
    }
    for (way, times) in ways.iter().zip(&mut times) {
        report(&format!("request, {}", way.name), &percentiles(times));
    }
    for way in &ways {
        let begun = Instant::now();
        // Each asks at once: the service keeps only so many waiting that have not asked for anything yet.
        let first = |_| {
            let mut connection = way.connect("/");
            connection.ask();
            connection
        };
        let mut many: Vec<_> = (0..CONNECTIONS).map(first).collect();
        let opened = begun.elapsed();
        let mut times: Vec<_> =
            (0..5).flat_map(|_| many.iter_mut().map(Connection::ask).collect::<Vec<_>>()).collect();
        let figures =
            format!("{}; {} ms until each had its first answer", percentiles(&mut times), opened.as_millis());
        report(&format!("  {CONNECTIONS} connections, {}", way.name), &figures);
    }
    let mut speeds = vec![Vec::new(); ways.len()];
    for _ in 0..DOWNLOADS {
        for (way, speeds) in ways.iter().zip(&mut speeds) {
            speeds.push(way.connect("/big").download() / 1e6);
        }
    }
    for (way, speeds) in ways.iter().zip(&mut speeds) {
        report(&format!("  1 GiB, {}", way.name), &format!("{:.0} MB/s", median(speeds)));
    }
}

pub(crate) async fn ports() {
    let server = start();
    server.write(
        "many.py",
        "import socket, sys\nkept = []\nfor line in sys.stdin:\n    s = socket.socket()\n    s.bind(('127.0.0.1', 0))\n\
        \x20   s.listen()\n    print(s.getsockname()[1], flush=True)\n    kept = [s]\n",
    );
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let pid = wire.spawn(json!({"processType": "python", "command": "-u", "args": ["many.py"]})).await;
    let (mut told, mut printed) = (Vec::new(), Vec::new());
    for _ in 0..PORTS {
        let begun = Instant::now();
        wire.send(&json!({"type": "write", "pid": pid, "data": "x\n"})).await;
        let (mut port, mut line) = (None, None);
        while port.is_none() || line.is_none() {
            let message = wire.next().await;
            match message["type"].as_str() {
                Some("port") if message["state"] == "open" => port = Some(begun.elapsed()),
                Some("stdout") => line = Some(begun.elapsed()),
                _ => {}
            }
        }
        told.extend(port);
        printed.extend(line);
    }
    report("port event, from the order to listen", &percentiles(&mut told));
    report("  what it printed after, from the same", &percentiles(&mut printed));
}

pub(crate) async fn idle_servers() {
    let server = start();
    server.write(
        "idle.py",
        "import signal, socket\ns = socket.create_server(('127.0.0.1', 0))\nsignal.pause()\n",
    );
    server.write("mute.py", "import signal\nsignal.pause()\n");
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    for (what, script, listens) in
        [("that listen on nothing", "mute.py", false), ("that listen", "idle.py", true)]
    {
        let mut pids = Vec::new();
        for _ in 0..SERVERS {
            let pid = wire.spawn(json!({"processType": "python", "command": script})).await;
            if listens {
                wire.next_where(|message| message["type"] == "port" && message["pid"] == pid).await;
            }
            pids.push(pid);
        }
        tokio::time::sleep(SETTLED).await;
        let before = cpu_of_service(&server);
        tokio::time::sleep(IDLE).await;
        let used = (cpu_of_service(&server) - before) / IDLE.as_secs_f64();
        report(
            &format!("CPU of the service, {SERVERS} programs {what}"),
            &format!("{:.3} % of a core", used * 100.0),
        );
        for pid in pids {
            wire.request(json!({"type": "kill", "id": 1, "pid": pid, "signal": "SIGKILL"})).await;
        }
    }
}

/// Seconds that all processes of the service's own have run: what shows its name, or is a supervisor.
fn cpu_of_service(server: &Server) -> f64 {
    let own = server.descendants().into_iter().map(|process| process.os_pid).chain([server.os_pid()]);
    let threads = own.filter(|pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        !name.starts_with("python")
    });
    let nanoseconds: u64 = threads
        .flat_map(|pid| std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten())
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
        .sum();
    nanoseconds as f64 / 1e9
}
