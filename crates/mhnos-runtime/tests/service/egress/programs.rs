//! The programs people use, on their way out.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use mhnos_testing::{Options, Scratch, Server, Wire, WireOptions, eventually};
use serde_json::json;

use super::{
    outside::{self, Outside},
    policy, said, shared,
};

/// For OpenClaw to have come as far as its first question, on a machine with much else to do. Reached on failure only.
const LONG: Duration = Duration::from_mins(5);

/// A command of the host, which must succeed; its stdout.
#[track_caller]
fn host(program: impl AsRef<Path>, arguments: &[&str], directory: &Path) -> String {
    let program = program.as_ref();
    let output = Command::new(program).args(arguments).current_dir(directory).output();
    let output = output.unwrap_or_else(|error| panic!("{} is needed: {error}", program.display()));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {arguments:?}: {stderr}", program.display());
    String::from_utf8(output.stdout).expect("text")
}

/// A server for files with a certificate of its own, ended with the test.
struct Files {
    process: Child,
    url: String,
    rule: String,
}

impl Files {
    /// Serves `directory`; the certificate that vouches for it is `directory/ca.pem`.
    fn serve(directory: &Path) -> Self {
        let address = outside::own_address();
        let name = format!("subjectAltName=IP:{address}");
        let request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"];
        let rest = ["-addext", &name, "-keyout", "key.pem", "-out", "ca.pem"];
        host("openssl", &[&request[..], &rest[..]].concat(), directory);
        let script = directory.join("https.py");
        std::fs::write(&script, include_str!("https.py")).expect("write");
        let mut process = Command::new("python3")
            .arg(script)
            .args([&address.to_string(), "ca.pem", "key.pem", "."])
            .current_dir(directory)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut port = String::new();
        let stdout = process.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut port).expect("a port");
        let at = format!("{address}:{}", port.trim());
        Self { process, url: format!("https://{at}"), rule: at }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// The service with this policy, where programs have a network of their own and where they have not.
fn everywhere(egress: &str) -> Vec<Options> {
    std::iter::once(policy(egress)).chain(shared::hosts().map(|host| shared::policy(host, egress))).collect()
}

/// Node.js, asking for `/x` in the two ways it has.
pub(super) fn node_fetch(url: &str) -> String {
    format!("node -e \"fetch('{url}/x').then(r => r.text()).then(t => process.stdout.write(t))\"")
}

pub(super) fn node_get(url: &str) -> String {
    format!("node -e \"require('http').get('{url}/x', r => r.pipe(process.stdout))\"")
}

#[tokio::test]
async fn curl_and_python_find_the_proxy_by_themselves() {
    let outside = Outside::start();
    let server = Server::start(policy(&outside.rule()));
    let url = outside.url();
    for script in [
        format!("curl -sS {url}/x"),
        format!("curl -sS --socks5-hostname 127.0.0.1:3128 {url}/x"),
        format!("curl -sS --proxytunnel {url}/x"),
        // Ports other than 80 and 443: Node.js asks for the proxy if it is told to.
        format!("export NODE_USE_ENV_PROXY=1; {}", node_fetch(&url)),
        format!("export NODE_USE_ENV_PROXY=1; {}", node_get(&url)),
        format!(
            "python3 -c \"import urllib.request as r; print(r.urlopen('{url}/x').read().decode(), end='')\""
        ),
    ] {
        assert_eq!(said(&server, &script).await, "GET /x", "{script}");
    }
    let body = "x".repeat(3 << 20);
    server.write("body", &body);
    let upload = format!(
        "curl -sS --data-binary @body -H 'Expect:' {url}/upload | sha256sum; (printf 'POST /upload'; cat body) | sha256sum"
    );
    let sums = said(&server, &upload).await;
    let sums: Vec<_> = sums.lines().collect();
    assert_eq!(sums[0], sums[1], "a body of three megabytes goes out and comes back");
}

/// What programs of type node get by default starts fast and reaches ports 80 and 443 (below); the rest is one
/// variable away.
#[tokio::test]
async fn node_reaches_other_ports_when_its_environment_says_so() {
    let outside = Outside::start();
    let server = Server::start(policy(&outside.rule()));
    server
        .write("get.mjs", format!("process.stdout.write(await (await fetch('{}/x')).text())", outside.url()));
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let run = async |wire: &mut Wire, env: serde_json::Value| {
        let options = json!({"pty": false, "env": env});
        let pid = wire.spawn(json!({"processType": "node", "command": "get.mjs", "options": options})).await;
        wire.run_to_exit(pid).await
    };
    let (stdout, stderr, exit) = run(&mut wire, json!({"NODE_USE_ENV_PROXY": "1"})).await;
    assert_eq!((stdout.as_str(), exit["code"].as_i64()), ("GET /x", Some(0)), "{stderr}");
    let (_, stderr, exit) = run(&mut wire, json!({})).await;
    assert!(exit["code"] == 1 && stderr.contains("ECONNREFUSED"), "{exit} {stderr}");
}

#[tokio::test]
async fn a_proxy_passes_on_what_is_meant_for_the_server_and_nothing_else() {
    let outside = Outside::start();
    let server = Server::start(policy(&outside.rule()));
    let url = outside.url();
    let script = format!(
        "curl -sS {url}/headers -H 'Host: other.example' -H 'Proxy-Authorization: Basic c2VjcmV0' \
         -H 'Connection: close, X-For-The-Proxy' -H 'X-For-The-Proxy: 1' -H 'X-For-The-Server: 2' -H 'TE: trailers'"
    );
    let said = said(&server, &script).await;
    assert!(said.contains(&format!("\nhost: {}", outside.rule())), "{said}");
    assert!(said.contains("\nx-for-the-server: 2"), "{said}");
    for absent in ["other.example", "proxy-", "x-for-the-proxy", "te: "] {
        assert!(!said.contains(absent), "{absent}: {said}");
    }
}

#[tokio::test]
async fn git_clones_over_https_with_a_certificate_of_ones_own() {
    let scratch = Scratch::new();
    let root = scratch.path();
    host("git", &["init", "-q", "-b", "main", "work"], root);
    std::fs::write(root.join("work/file.txt"), "from git\n").expect("write");
    let who = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
    host("git", &["add", "."], &root.join("work"));
    host("git", &[&who[..], &["commit", "-q", "-m", "one"]].concat(), &root.join("work"));
    host("git", &["clone", "-q", "--bare", "work", "repo.git"], root);
    host("git", &["update-server-info"], &root.join("repo.git"));
    let files = Files::serve(root);
    for options in everywhere(&files.rule) {
        let server = Server::start(options);
        server.write("ca.pem", std::fs::read(root.join("ca.pem")).expect("the certificate"));
        let clone = format!(
            "GIT_SSL_CAINFO=$PWD/ca.pem git clone -q {}/repo.git cloned && cat cloned/file.txt",
            files.url
        );
        assert_eq!(said(&server, &clone).await, "from git\n");
        // And nobody in between has a certificate of his own.
        let (_, stderr, exit) = super::shell(&server, &format!("curl -sS {}/ca.pem", files.url)).await;
        assert_eq!(exit["code"], 60, "{stderr}");
    }
}

/// An address of this machine that others can reach; nothing is sent.
fn own_public_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
    let routed = socket.connect("203.0.113.1:9").and_then(|()| socket.local_addr());
    let address =
        routed.expect("this test needs a machine with a network interface beside the loopback").ip();
    assert!(!address.is_loopback() && !address.is_unspecified(), "{address}");
    address
}

#[tokio::test]
async fn programs_that_know_of_no_proxy_are_caught() {
    let address = own_public_address();
    // Another run of this test may be at it.
    let outside = eventually(Duration::from_mins(2), "port 80 is free", || Outside::listen_at(address, 80));
    let server = Server::start(policy(&outside.rule()));
    let url = format!("http://{address}");
    for script in [format!("curl -sS --noproxy '*' {url}/x"), node_fetch(&url), node_get(&url)] {
        assert_eq!(said(&server, &script).await, "GET /x", "{script}");
    }
    server.write(
        "worker.js",
        format!("export default {{ async fetch() {{ return fetch('{url}/from-a-worker') }} }}\n"),
    );
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let pid = wire.spawn(json!({"processType": "workerd", "command": "/worker.js"})).await;
    let port = wire.next_where(|message| message["type"] == "port" && message["pid"] == pid).await;
    let ask = format!("curl -sS http://127.0.0.1:{}/", port["port"]);
    assert_eq!(said(&server, &ask).await, "GET /from-a-worker");
    // The same, where no rule opens it.
    let before = outside.requests();
    let closed = Server::start(policy("public"));
    let (_, stderr, exit) = super::shell(&closed, &format!("curl -sS --noproxy '*' {url}/x")).await;
    assert_ne!(exit["code"], 0, "{stderr}");
    closed.logged(Duration::from_secs(10), "own-address");
    assert_eq!(outside.requests(), before);
}

/// Where npm and pip get packages on this machine, told to a program as it is told to them here.
pub(crate) struct Registries {
    pub(crate) npm: String,
    pub(crate) environment: String,
    hosts: Vec<String>,
}

impl Registries {
    pub(crate) fn of_this_machine() -> Self {
        let here = Path::new("/");
        let npm = mhnos_testing::tool("npm");
        let setting = |name: &str| host(&npm, &["config", "get", name], here).trim().to_owned();
        let registry = setting("registry");
        let mut environment = format!("export npm_config_registry={registry} npm_config_cache=$PWD/.npm\n");
        let cafile = setting("cafile");
        if !["null", "undefined", ""].contains(&cafile.as_str()) {
            environment.extend(["export npm_config_cafile=", &cafile, "\n"]);
        }
        let mut hosts = vec![host_of(&registry)];
        for line in host("python3", &["-m", "pip", "config", "list"], here).lines() {
            let Some((name, value)) = line.split_once('=') else { continue };
            let name = name.rsplit('.').next().unwrap_or_default();
            // What is on this machine's disk is no test of the network.
            if ["index-url", "extra-index-url", "cert", "trusted-host"].contains(&name) {
                let variable = name.to_uppercase().replace('-', "_");
                environment.extend(["export PIP_", &variable, "=", value, "\n"]);
                hosts.extend(name.ends_with("url").then(|| host_of(value.trim_matches('\''))));
            }
        }
        environment += "export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1\n";
        Self { npm: npm.display().to_string(), environment, hosts }
    }

    /// The default policy; a registry within a private network is opened by its name.
    pub(crate) fn rule(&self) -> String {
        std::iter::once("public").chain(self.hosts.iter().map(String::as_str)).collect::<Vec<_>>().join(",")
    }
}

fn host_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    host.split(':').next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn npm_installs_from_the_registry() {
    let registries = Registries::of_this_machine();
    let script = format!(
        "{}mkdir -p app && cd app && echo '{{}}' > package.json && {} install --no-audit --no-fund --loglevel http express >&2 \
         && node -e \"console.log(typeof require('express')().listen)\"",
        registries.environment, registries.npm
    );
    for options in everywhere(&registries.rule()) {
        assert_eq!(said(&Server::start(options), &script).await, "function\n");
    }
}

/// One of its commands asks a server out there, where it is told to, and shows what was answered.
#[tokio::test]
async fn openclaw_reaches_what_a_rule_opens() {
    let (outside, other) = (Outside::start(), Outside::start());
    for options in everywhere(&outside.rule()).into_iter().take(2) {
        let server = Server::start(options.env("MHNOS_ALLOW_OPENCLAW", "true"));
        let mut wire = Wire::connect(server.address()).await;
        let before = outside.requests();
        let mut pids = Vec::new();
        for target in [&outside, &other] {
            let options = json!({"pty": false, "env": {"OPENCLAW_CLAWHUB_URL": target.url()}});
            let search = json!({"processType": "openclaw", "command": "skills", "args": ["search", "x"], "options": options});
            pids.push(wire.spawn(search).await);
        }
        eventually(LONG, "a question", || (outside.requests() > before).then_some(()));
        wire.stdout_until(pids[0], "from-outside").await;
        server.logged(LONG, &format!("\"port\":{},\"rule\":\"not-listed\"", other.address().port()));
        assert_eq!(other.requests(), 0);
    }
}

#[tokio::test]
async fn pip_installs_from_the_index_and_requests_find_the_proxy() {
    let registries = Registries::of_this_machine();
    let outside = Outside::start();
    let script = format!(
        "{}python3 -m venv venv && venv/bin/pip install requests >&2 \
         && venv/bin/python -c \"import requests; print(requests.get('{}/x').text)\"",
        registries.environment,
        outside.url()
    );
    for options in everywhere(&format!("{},{}", registries.rule(), outside.rule())) {
        assert_eq!(said(&Server::start(options), &script).await, "GET /x\n");
    }
}

/// What a server says first; it leaves when it is answered.
fn say_ssh(mut stream: TcpStream) {
    std::thread::spawn(move || {
        _ = stream.write_all(b"SSH-2.0-OutsideTest\r\n");
        _ = stream.read(&mut [0; 64]);
    });
}

/// The real client, up to where a server would have to be one. Who has an SSH server of his own there is asked himself.
#[tokio::test]
async fn ssh_is_caught_on_its_port() {
    let address = own_public_address();
    match TcpListener::bind((address, 22)) {
        Ok(listener) => {
            std::thread::spawn(move || listener.incoming().flatten().for_each(say_ssh));
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{error}"),
    }
    let banner = format!("exec 3<>/dev/tcp/{address}/22 && head -c 8 <&3");
    let ssh = format!(
        "ssh -v -F /dev/null -o StrictHostKeyChecking=no -o BatchMode=yes x@{address} 2>&1 | grep -m 1 -o 'Remote protocol version 2.0'"
    );
    let open = Server::start(policy(&format!("{address}:22")));
    assert_eq!(said(&open, &banner).await, "SSH-2.0-");
    assert_eq!(said(&open, &ssh).await, "Remote protocol version 2.0\n");
    let closed = Server::start(policy("public"));
    let (stdout, stderr, _) = super::shell(&closed, &banner).await;
    assert_eq!(stdout, "", "{stderr}");
    closed.logged(Duration::from_secs(10), "\"port\":22,\"rule\":\"own-address\"");
}

/// A name, an address of ours for it, and the server's own certificate at the end: nobody is in between.
#[tokio::test]
async fn https_without_a_proxy_reaches_the_host_its_name_stands_for() {
    let registries = Registries::of_this_machine();
    let server = Server::start(policy(&registries.rule()));
    let script = format!(
        "{}export NODE_EXTRA_CA_CERTS=$npm_config_cafile; node -e \"\
           require('dns').lookup(new URL(process.env.npm_config_registry).hostname, {{family: 4}}, (_, a) => console.log(a));\
           require('https').get(process.env.npm_config_registry, r => {{ console.log(r.statusCode < 500); r.resume() }})\"",
        registries.environment
    );
    let stdout = said(&server, &script).await;
    assert!(stdout.contains("198.1") && stdout.contains("true"), "{stdout}");
    // Who looks the name up itself asks the proxy for that address.
    let script = format!(
        "{}export CURL_CA_BUNDLE=$npm_config_cafile; \
         curl -sS -o /dev/null -w '%{{remote_ip}} %{{http_code}}' --socks5 127.0.0.1:3128 $npm_config_registry",
        registries.environment
    );
    let stdout = said(&server, &script).await;
    assert!(stdout.ends_with(" 200") || stdout.ends_with(" 401") || stdout.ends_with(" 404"), "{stdout}");
}
