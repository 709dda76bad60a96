//! `health`: asks the service of these settings how it is, for a container's health check and for scripts.
//!
//! It needs nothing but a connection, so it works where there is no curl and no shell. Exit status 0 and the service's own
//! answer on stdout if it is well, else 1 and one line that says what was found instead.

use std::{
    fmt::Display,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};

use clap::ArgMatches;
use mhnos_server::config::Config;

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
    let addresses = config.hosts.iter().map(|host| SocketAddr::new(reachable(*host), config.port));
    let mut refusals = Vec::new();
    for address in addresses {
        match ask(address, config.tls_cert.is_some()) {
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

/// Who listens on every address is asked on loopback.
fn reachable(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

/// The body of a good answer. Where TLS is spoken, that the service says so is answer enough.
fn ask(address: SocketAddr, tls: bool) -> Result<String, String> {
    let told = |what: &'static str| move |error: io::Error| format!("{what}: {}", reason(&error));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(told("no service listens"))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(told("cannot wait"))?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(told("cannot wait"))?;
    let request = format!("GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(told("the service takes no request"))?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer).map_err(told("the service does not answer"))?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("what listens there does not speak HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    let code = status.split(' ').nth(1);
    if code == Some("200") {
        Ok(body.trim_end().to_owned())
    } else if tls && code == Some("400") && body.contains("speaks TLS") {
        Ok(r#"{"status":"ok"}"#.to_owned())
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
