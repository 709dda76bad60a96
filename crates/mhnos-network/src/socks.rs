//! SOCKS 5 (RFC 1928), without credentials and for connections only: who asks is known by the socket.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{dial::DialError, gateway::Way, pipe, report::Via, target::Target};

/// The first byte of everything.
pub(crate) const VERSION: u8 = 5;
const NO_CREDENTIALS: u8 = 0;
const NO_ACCEPTABLE_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;

const GRANTED: u8 = 0;
const FAILED: u8 = 1;
const FORBIDDEN: u8 = 2;
const HOST_UNREACHABLE: u8 = 4;
const CONNECTION_REFUSED: u8 = 5;
const TIMED_OUT: u8 = 6;
const NO_SUCH_COMMAND: u8 = 7;
const NO_SUCH_KIND_OF_ADDRESS: u8 = 8;

/// Serves one connection.
pub(crate) async fn serve(mut stream: TcpStream, way: &Way) -> io::Result<()> {
    let asked = timeout(way.gateway.bounds.ask, ask(&mut stream)).await;
    let target = match asked.map_err(io::Error::from)?? {
        Ok(target) => target,
        Err(code) => return reply(&mut stream, code).await,
    };
    match way.dial(&target, Via::Proxy).await {
        Ok(outside) => {
            reply(&mut stream, GRANTED).await?;
            pipe::both_ways(stream, outside, way.gateway.bounds.idle).await
        }
        Err(error) => reply(&mut stream, code(&error)).await,
    }
}

fn code(error: &DialError) -> u8 {
    match error {
        DialError::Refused(_) => FORBIDDEN,
        DialError::TimedOut => TIMED_OUT,
        DialError::Unreachable(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            CONNECTION_REFUSED
        }
        DialError::NoSuchName | DialError::Unreachable(_) | DialError::Upstream(_) => HOST_UNREACHABLE,
    }
}

/// Where to; or the code that says why not.
pub(crate) async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> io::Result<Result<Target, u8>> {
    if stream.read_u8().await? != VERSION {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut methods = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut methods).await?;
    if !methods.contains(&NO_CREDENTIALS) {
        stream.write_all(&[VERSION, NO_ACCEPTABLE_METHOD]).await?;
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    stream.write_all(&[VERSION, NO_CREDENTIALS]).await?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    if head[0] != VERSION {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let host = match head[3] {
        1 => IpAddr::from(Ipv4Addr::from_bits(stream.read_u32().await?)).to_string(),
        4 => IpAddr::from(Ipv6Addr::from_bits(stream.read_u128().await?)).to_string(),
        3 => {
            let mut name = vec![0; usize::from(stream.read_u8().await?)];
            stream.read_exact(&mut name).await?;
            String::from_utf8(name).unwrap_or_default()
        }
        _ => return Ok(Err(NO_SUCH_KIND_OF_ADDRESS)),
    };
    let port = stream.read_u16().await?;
    if head[1] != CONNECT {
        return Ok(Err(NO_SUCH_COMMAND));
    }
    Ok(Target::parse(&host, port).ok_or(FAILED))
}

async fn reply(stream: &mut TcpStream, code: u8) -> io::Result<()> {
    // The address that was bound: nobody needs it.
    stream.write_all(&[VERSION, code, 0, 1, 0, 0, 0, 0, 0, 0]).await
}
