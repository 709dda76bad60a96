//! Names to addresses, outside the sandbox, by the machine's own resolver.
//!
//! That one blocks and cannot be told to stop. So each lookup has a thread of its own, which nothing waits for at the end of the
//! process, and takes its places with it: whoever no longer wants the answer does not make room for another question by that.

use std::{
    future::Future,
    io,
    net::{IpAddr, ToSocketAddrs},
    pin::Pin,
    sync::Arc,
    thread,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::limits::{ADDRESSES, RESOLVING};

/// Who resolves names. Tests bring their own.
pub trait Resolver: Send + Sync {
    /// The addresses of a host name, in the order in which they should be tried; never asked twice for one
    /// connection. The asker's `place` is given back when the question is over, which may be after the future has been dropped.
    /// An error of kind [`io::ErrorKind::WouldBlock`] says that nobody has been asked.
    fn resolve<'r>(
        &'r self,
        name: &'r str,
        place: OwnedSemaphorePermit,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'r>>;
}

/// As every program of this machine does it: nsswitch.conf, hosts, and the servers of resolv.conf.
#[derive(Debug)]
pub struct SystemResolver {
    places: Arc<Semaphore>,
    look_up: fn(&str) -> io::Result<Vec<IpAddr>>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(RESOLVING)), look_up }
    }
}

impl Resolver for SystemResolver {
    fn resolve<'r>(
        &'r self,
        name: &'r str,
        place: OwnedSemaphorePermit,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'r>> {
        Box::pin(async move {
            let of_all = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
            let (tell, told) = oneshot::channel();
            let (name, look_up) = (name.to_owned(), self.look_up);
            thread::Builder::new().name("resolver".to_owned()).spawn(move || {
                let found = look_up(&name);
                drop((place, of_all));
                let _ = tell.send(found);
            })?;
            told.await.map_err(io::Error::other)?
        })
    }
}

fn look_up(name: &str) -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in (name, 0).to_socket_addrs()?.map(|address| crate::address::plain(address.ip())) {
        if !addresses.contains(&address) && addresses.len() < ADDRESSES {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use tokio::{sync::RwLock, time::timeout};

    use super::*;

    #[tokio::test]
    async fn lookups_that_nobody_waits_for_are_bounded_too() {
        static BEGUN: AtomicUsize = AtomicUsize::new(0);
        static SLOW: RwLock<()> = RwLock::const_new(());
        let slow = SLOW.write().await;
        let look_up = |_: &str| {
            BEGUN.fetch_add(1, Ordering::SeqCst);
            drop(SLOW.blocking_read());
            Ok(vec![])
        };
        let resolver = SystemResolver { look_up, ..SystemResolver::default() };
        let askers = Arc::new(Semaphore::new(100));
        let place = || Arc::clone(&askers).try_acquire_owned().expect("a place");
        for _ in 0..100 {
            // Polled once and dropped.
            let asked = timeout(Duration::ZERO, resolver.resolve("slow.example", place())).await;
            assert!(asked.is_err());
        }
        assert_eq!(askers.available_permits(), 100 - RESOLVING, "those that have begun keep their places");
        drop(slow);
        let over = askers.acquire_many(100).await.expect("all give them back");
        assert_eq!(BEGUN.load(Ordering::SeqCst), RESOLVING);
        drop(over);
        resolver.resolve("next.example", place()).await.expect("there is room");
    }

    #[tokio::test]
    async fn the_machines_own_resolver_is_asked() {
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a place");
        let found = SystemResolver::default().resolve("localhost", place).await.expect("resolved");
        assert!(found.contains(&IpAddr::from([127, 0, 0, 1])), "{found:?}");
    }
}
