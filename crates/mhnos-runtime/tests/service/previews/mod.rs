//! Previews: what programs listen on, told to those who view them, and reached by host name.

mod browser;
mod events;
mod exchanges;
mod strangers;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use mhnos_testing::{HttpReply, Server, Wire, WireOptions, http_raw};
use serde_json::{Value, json};

use crate::start;

const SERVER: &str = include_str!("server.mjs");

/// Longer than a loaded machine needs.
const DEADLINE: Duration = Duration::from_mins(1);

/// A program that listens, seen by a client.
struct Preview {
    server: Server,
    wire: Wire,
    pid: u64,
    port: u64,
}

impl Preview {
    async fn of(source: &str) -> Self {
        Self::on(start(), source).await
    }

    async fn on(server: Server, source: &str) -> Self {
        server.write("server.mjs", source);
        let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
        let pid = wire.spawn(json!({"processType": "node", "command": "server.mjs"})).await;
        let told = opened(&mut wire, pid).await;
        let port = told["port"].as_u64().expect("a port");
        let expected = format!("http://p{pid}-{port}.localhost:{}/", server.address().port());
        assert_eq!(told["url"], expected, "{told}");
        Self { server, wire, pid, port }
    }

    fn host(&self) -> String {
        format!("p{}-{}.localhost:{}", self.pid, self.port, self.server.address().port())
    }

    fn origin(&self) -> String {
        format!("http://{}", self.host())
    }

    fn get(&self, path: &str, headers: &[&str]) -> HttpReply {
        get(self.server.address(), &self.host(), path, headers)
    }

    /// A connection of a client that speaks for itself.
    fn connect(&self) -> TcpStream {
        connect(self.server.address())
    }
}

async fn opened(wire: &mut Wire, pid: u64) -> Value {
    let open =
        |message: &Value| message["type"] == "port" && message["pid"] == pid && message["state"] == "open";
    wire.next_where(open).await
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the service is there");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    stream
}

fn get(address: SocketAddr, host: &str, path: &str, headers: &[&str]) -> HttpReply {
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for line in headers {
        request.extend([line, "\r\n"]);
    }
    let answer = http_raw(address, format!("{request}\r\n").as_bytes()).expect("an answer");
    HttpReply::parse(&answer).unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(&answer)))
}

/// Reads until what has come ends with `end`.
fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let mut byte = [0];
        let read = stream.read(&mut byte).unwrap_or_else(|error| {
            panic!("{error} instead of {end:?} after {:?}", String::from_utf8_lossy(&text))
        });
        assert_eq!(read, 1, "the end instead of {end:?} after {:?}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
    String::from_utf8(text).expect("text")
}

fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).expect("the service reads");
}
