//! `health`: asks the service of these settings how it is, for a container's health check and for scripts.
//!
//! It needs nothing but a connection, so it works where there is no curl and no shell. Exit status 0 and the service's own
//! answer on stdout if it is well, else 1 and one line that says what was found instead.
//!
//! A container runs it as its own user, root, every few seconds: it gives root up before it connects.
//!
//! Where TLS is spoken, it is spoken with whoever shows the certificate of the settings. Another certificate is told and
//! is no illness: a new file is taken up within seconds, or at a restart where the service's account cannot read it, and
//! what restarts a service for its health must not do so for that.

use std::{
    fmt::Display,
    fs,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::unix::fs::MetadataExt,
    path::Path,
    process::ExitCode,
    time::Duration,
};

use clap::ArgMatches;
use mhnos_client::tls;
use mhnos_sandbox::stage::{self, Account};
use mhnos_server::config::Config;
use rustls::{ClientConnection, StreamOwned};

use crate::cli;

/// For each of connecting, sending and each read. A service that is well answers within milliseconds; this is below the
/// time that health checks are usually given.
const PATIENCE: Duration = Duration::from_secs(3);

/// Bytes of an answer; a real one has a few hundred.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// Exit status 0 if the service answers that it is well.
pub(crate) fn run(arguments: &ArgMatches) -> ExitCode {
    let config = match Config::parse(std::env::vars_os(), &cli::flags(arguments)) {
        Ok((config, _)) => config,
        Err(mistakes) => return unwell(mistakes.first().map_or(String::new(), ToString::to_string)),
    };
    if config.port == 0 {
        return unwell("MHNOS_RUNTIME_PORT=0 does not say where the service is; give --runtime-port");
    }
    let certificate = config.tls_cert.as_deref().map(Certificate::read);
    if let Err(error) = leave_root(&config.workspace) {
        return unwell(format!("cannot stop being root: {error}"));
    }
    let addresses = config.hosts.iter().map(|host| SocketAddr::new(reachable(*host), config.port));
    let mut refusals = Vec::new();
    for address in addresses {
        let answer = match &certificate {
            Some(certificate) => ask_securely(address, certificate),
            None => ask(address).and_then(well),
        };
        match answer {
            Ok(body) => {
                println!("{body}");
                return ExitCode::SUCCESS;
            }
            Err(error) => refusals.push(format!("{address}: {error}")),
        }
    }
    unwell(refusals.join("; "))
}

fn unwell(what: impl Display) -> ExitCode {
    eprintln!("mhnos-runtime: not healthy: {what}");
    ExitCode::FAILURE
}

/// As `serve` does, and then a user of neither the service nor its programs.
fn leave_root(workspace: &Path) -> Result<(), String> {
    if Account::current().uid != 0 {
        return Ok(());
    }
    let owner = fs::metadata(workspace).map(|meta| Account { uid: meta.uid(), gid: meta.gid() });
    let programs = Account::for_root(owner.unwrap_or(Account { uid: 0, gid: 0 }));
    stage::become_bystander(programs).map_err(|error| error.to_string())
}

/// Who listens on every address is asked on loopback.
fn reachable(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

/// A status line, and a body.
type Answer = (String, String);

fn ask(address: SocketAddr) -> Result<Answer, String> {
    exchange(connect(address)?, address).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => "what listens there does not speak HTTP".to_owned(),
        _ => format!("the service does not answer: {}", reason(&error)),
    })
}

/// The file of `MHNOS_TLS_CERT`, read while it may be.
struct Certificate<'a> {
    path: &'a Path,
    text: io::Result<String>,
}

impl<'a> Certificate<'a> {
    fn read(path: &'a Path) -> Self {
        Self { path, text: fs::read_to_string(path) }
    }
}

/// The body of a good answer through TLS; or, if there can be no such answer for want of the right certificate, what the
/// service says without.
fn ask_securely(address: SocketAddr, certificate: &Certificate) -> Result<String, String> {
    let trusted = certificate.text.as_ref().map_err(ToString::to_string);
    let trusted = trusted.and_then(|text| tls::trusting(text).map_err(|error| error.to_string()));
    let why = match trusted {
        Err(error) => format!("{}: {error}", certificate.path.display()),
        Ok(config) => {
            let told = |error: rustls::Error| error.to_string();
            let session = ClientConnection::new(config, address.ip().into()).map_err(told)?;
            match exchange(StreamOwned::new(session, connect(address)?), address) {
                Ok(answer) => return well(answer),
                Err(error) if is_of_certificate(&error) => error.to_string(),
                Err(error) => return Err(format!("the service does not answer: {}", reason(&error))),
            }
        }
    };
    eprintln!(
        "mhnos-runtime: {address}: the service's certificate could not be compared with MHNOS_TLS_CERT: {why}"
    );
    match ask(address)? {
        (_, body) if body.contains("speaks TLS") => Ok(r#"{"status":"ok"}"#.to_owned()),
        answer => well(answer),
    }
}

fn is_of_certificate(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::InvalidCertificate(_)))
}

fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let told = |what: &'static str| move |error: io::Error| format!("{what}: {}", reason(&error));
    let stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(told("no service listens"))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(told("cannot wait"))?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(told("cannot wait"))?;
    Ok(stream)
}

/// Asks once. [`io::ErrorKind::InvalidData`]: the answer is no HTTP.
fn exchange(mut stream: impl Read + Write, address: SocketAddr) -> io::Result<Answer> {
    let request = format!("GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    match stream.take(LONGEST_ANSWER).read_to_end(&mut answer) {
        // The end may come without TLS's own farewell.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
        _ => {}
    }
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    Ok((head.lines().next().unwrap_or_default().to_owned(), body.trim_end().to_owned()))
}

/// The body, if the status is 200.
fn well((status, body): Answer) -> Result<String, String> {
    if status.split(' ').nth(1) == Some("200") {
        Ok(body)
    } else {
        Err(format!("the service answers {status}"))
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!("not within {PATIENCE:?}"),
        _ => error.to_string(),
    }
}
