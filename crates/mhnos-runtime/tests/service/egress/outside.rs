//! A server outside: plain HTTP on a loopback address that nobody else uses.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    thread,
};

/// What OpenClaw's catalogue answers to a search.
const SEARCHED: &str = r#"{"results":[{"slug":"from-outside","displayName":"An answer","source":"clawhub","ownerHandle":"outside"}]}"#;

/// Answers every request with its method, path and body.
#[derive(Debug)]
pub(crate) struct Outside {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Outside {
    /// On a port of the system's choice.
    pub(crate) fn start() -> Self {
        Self::listen_at(own_address(), 0).expect("nobody else has this address")
    }

    /// At this address, unless somebody is there. Ports below 1024 take root, or a kernel that lets everybody have them.
    pub(crate) fn listen_at(address: IpAddr, port: u16) -> Option<Self> {
        let listener = match TcpListener::bind((address, port)) {
            Ok(listener) => listener,
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => return None,
            Err(error) => panic!(
                "cannot listen on port {port}: {error}; as root: sysctl -w net.ipv4.ip_unprivileged_port_start=80"
            ),
        };
        let address = listener.local_addr().expect("an address");
        let requests: Arc<AtomicUsize> = Arc::default();
        let counter = Arc::clone(&requests);
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counter = Arc::clone(&counter);
                thread::spawn(move || _ = serve(&stream, &counter));
            }
        });
        Some(Self { address, requests })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `MHNOS_EGRESS` says to open it.
    pub(crate) fn rule(&self) -> String {
        self.address.to_string()
    }

    /// How many requests have come.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Tests run beside each other, in several processes: 127.100.0.0/14 has room for all of them.
pub(crate) fn own_address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = std::process::id() << 6 | NEXT.fetch_add(1, Ordering::SeqCst) & 0x3f;
    Ipv4Addr::from_bits(0x7f64_0000 | number & 0x3_ffff).into()
}

fn serve(stream: &TcpStream, counter: &AtomicUsize) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream.try_clone()?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        counter.fetch_add(1, Ordering::SeqCst);
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut said = format!("{method} {path}");
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap_or(0);
            }
            if path == "/headers" {
                said.extend(["\n", &name.to_ascii_lowercase(), ": ", value.trim()]);
            }
        }
        if path.starts_with("/api/v1/search?") {
            SEARCHED.clone_into(&mut said);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        said += &String::from_utf8_lossy(&body);
        let redirect = path.strip_prefix("/to?").map(|to| format!("Location: {to}\r\n"));
        let status = if redirect.is_some() { "302 Found" } else { "200 OK" };
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{}\r\n{said}",
            said.len(),
            redirect.unwrap_or_default()
        )?;
    }
}
