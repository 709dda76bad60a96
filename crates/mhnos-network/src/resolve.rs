//! Names to addresses, outside the sandbox, by the machine's own resolver.

use std::{future::Future, io, net::IpAddr, pin::Pin};

use tokio::sync::Semaphore;

use crate::limits::{ADDRESSES, RESOLVING};

/// Who resolves names. Tests bring their own.
pub trait Resolver: Send + Sync {
    /// The addresses of a host name, in the order in which they should be tried; never asked twice for one
    /// connection.
    fn resolve<'r>(
        &'r self,
        name: &'r str,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'r>>;
}

/// As every program of this machine does it: nsswitch.conf, hosts, and the servers of resolv.conf.
#[derive(Debug)]
pub struct SystemResolver {
    places: Semaphore,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self { places: Semaphore::new(RESOLVING) }
    }
}

impl Resolver for SystemResolver {
    fn resolve<'r>(
        &'r self,
        name: &'r str,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'r>> {
        Box::pin(async move {
            let _place = self.places.acquire().await.map_err(io::Error::other)?;
            let found = tokio::net::lookup_host((name, 0)).await?;
            let mut addresses: Vec<IpAddr> = Vec::new();
            for address in found.map(|address| crate::address::plain(address.ip())) {
                if !addresses.contains(&address) && addresses.len() < ADDRESSES {
                    addresses.push(address);
                }
            }
            Ok(addresses)
        })
    }
}
