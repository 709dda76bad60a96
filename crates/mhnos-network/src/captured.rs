//! Connections to a port of any address, made by programs that know of no proxy. What goes over them is not looked at.

use std::io;

use tokio::net::TcpStream;

use crate::{
    gateway::{Way, reset, wanted},
    names, pipe,
    policy::RuleName,
    report::Via,
    target::{Host, Target},
};

/// An address of ours that stands for no name any more: the program has remembered it for too long.
const EXPIRED: RuleName = RuleName("name-expired");

/// Connects to where the program believes to be, or resets its connection.
pub(crate) async fn serve(stream: TcpStream, way: &Way) -> io::Result<()> {
    let (address, port) = wanted(&stream)?;
    if address.is_loopback() {
        // Its own loopback: nobody listens there, and that is no attempt to get out.
        reset(&stream);
        return Ok(());
    }
    let host = match names::number(address) {
        Some(number) => way.names().name(number).map(|name| Host::Name(name.to_owned())),
        None => Some(Host::Address(address)),
    };
    let Some(host) = host else {
        way.refused(address.to_string(), Some(port), EXPIRED, Via::Connection);
        reset(&stream);
        return Ok(());
    };
    let Ok(outside) = way.dial(&Target { host, port }, Via::Connection).await else {
        reset(&stream);
        return Ok(());
    };
    pipe::both_ways(stream, outside, way.gateway.bounds.idle).await
}
