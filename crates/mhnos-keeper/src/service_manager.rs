//! What a service manager is told: that the service is ready, alive, stopping (sd_notify(3)).
//!
//! The socket is connected at the start, by whoever starts the keeper, because the account the keeper goes on as may not
//! reach its name. The keeper vouches for itself alone: it starts bridges anew by itself, and to restart it would end all
//! programs.

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
};

/// The service manager's socket.
#[derive(Debug)]
pub struct ServiceManager {
    socket: OwnedFd,
    /// Between two signs of life, where they are wanted.
    interval: Option<Duration>,
    /// When the next one is due; nothing before the service is ready.
    due: Option<Instant>,
}

impl ServiceManager {
    /// `address` is `NOTIFY_SOCKET`: an absolute path, or a name after `@`. `watchdog` is the time without a sign of life
    /// after which the manager takes the service for hung (`WATCHDOG_USEC`).
    pub fn connect(address: &[u8], watchdog: Option<Duration>) -> io::Result<Self> {
        let name = match address {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
            path => SocketAddrUnix::new(path)?,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        connect(&socket, &name)?;
        // Twice as often as needed, as sd_watchdog_enabled(3) says.
        Ok(Self { socket, interval: watchdog.map(|time| time / 2), due: None })
    }

    /// Clients are served from now on.
    pub(crate) fn ready(&mut self) {
        self.tell("READY=1\nSTATUS=serving");
        self.due = self.interval.map(|interval| Instant::now() + interval);
    }

    /// Programs are being ended, which may take that long: the manager's own patience may be less.
    pub(crate) fn stopping(&self, longest: Duration) {
        let micros = longest.as_micros();
        self.tell(&format!("STOPPING=1\nSTATUS=ending programs\nEXTEND_TIMEOUT_USEC={micros}"));
    }

    /// When [`ServiceManager::live`] has something to say next.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// A sign of life, if one is due.
    pub(crate) fn live(&mut self, now: Instant) {
        if self.due.is_some_and(|due| due <= now) {
            self.tell("WATCHDOG=1");
            self.due = self.interval.map(|interval| now + interval);
        }
    }

    fn tell(&self, state: &str) {
        if let Err(error) = send(&self.socket, state.as_bytes(), SendFlags::NOSIGNAL) {
            tracing::warn!(%error, state, "the service manager does not listen");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    };

    use super::*;

    #[test]
    fn it_says_ready_alive_when_due_and_stopping() {
        let name = format!("mhnos-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let manager = UnixDatagram::bind_addr(&address).expect("bind");
        let heard = || {
            let mut text = [0; 100];
            let length = manager.recv(&mut text).expect("a message");
            String::from_utf8_lossy(&text[..length]).into_owned()
        };
        let mut service =
            ServiceManager::connect(format!("@{name}").as_bytes(), Some(Duration::from_secs(20)))
                .expect("connect");
        assert_eq!(service.due(), None, "nothing to say before it is ready");
        service.ready();
        assert!(heard().starts_with("READY=1\n"));
        let due = service.due().expect("a watchdog");
        service.live(due.checked_sub(Duration::from_millis(1)).expect("later than the boot"));
        service.live(due);
        assert_eq!(heard(), "WATCHDOG=1", "once, when due");
        assert_eq!(service.due(), Some(due + Duration::from_secs(10)));
        service.stopping(Duration::from_hours(1));
        let said = heard();
        assert!(
            said.starts_with("STOPPING=1\n") && said.ends_with("\nEXTEND_TIMEOUT_USEC=3600000000"),
            "{said}"
        );
    }

    #[test]
    fn without_a_watchdog_nothing_is_ever_due() {
        let dir = std::env::temp_dir().join(format!("mhnos-notify-{}", std::process::id()));
        let _manager = UnixDatagram::bind(&dir).expect("bind");
        let mut service = ServiceManager::connect(dir.as_os_str().as_encoded_bytes(), None).expect("connect");
        service.ready();
        assert_eq!(service.due(), None);
        std::fs::remove_file(&dir).expect("remove");
    }
}
