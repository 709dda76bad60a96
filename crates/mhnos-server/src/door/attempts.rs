//! How often things may go wrong: refused tokens per address, and log lines about refusals.
//!
//! A token is too long to be guessed at any rate; what is bounded here is the noise. From another machine, more than
//! [`limits::REFUSED_TOKENS`] refusals in a row are followed by refusals unseen. Loopback is shared by everybody on
//! this machine and by everybody behind a proxy, so there a right token is let in whatever others did.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
};

use tokio::time::Instant;

use crate::limits;

/// Whom to count as one: an address, or an IPv6 network, since whoever has one has all of it.
pub(crate) fn one_client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from(u128::from(address) >> 64 << 64))
        }
        other => other,
    }
}

/// A bucket that holds `burst` and gets `per_second` back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    level: f64,
    since: Instant,
    burst: f64,
    per_second: f64,
}

impl Bucket {
    pub(crate) fn full(burst: f64, per_second: f64, now: Instant) -> Self {
        Self { level: burst, since: now, burst, per_second }
    }

    fn refill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.since).as_secs_f64() * self.per_second;
        self.level = (self.level + gained).min(self.burst);
        self.since = now;
    }

    /// Takes one out if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let there = self.level >= 1.0;
        self.level -= f64::from(u8::from(there));
        there
    }

    pub(crate) fn is_empty(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.level < 1.0
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.level >= self.burst
    }
}

/// Refused tokens, by address.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Mutex<HashMap<IpAddr, Bucket>>);

impl Attempts {
    /// Whether this address has been refused so often that it is not looked at for now.
    pub(crate) fn are_used_up(&self, address: IpAddr) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get_mut(&one_client(address)).is_some_and(|bucket| bucket.is_empty(Instant::now()))
    }

    /// Notes a refusal.
    pub(crate) fn refused(&self, address: IpAddr) {
        let now = Instant::now();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= limits::REFUSED_ADDRESSES {
            known.retain(|_, bucket| !bucket.is_full(now));
        }
        if known.len() >= limits::REFUSED_ADDRESSES {
            // So many at once are one attacker with a botnet's addresses: starting over forgives each of them once.
            known.clear();
        }
        let fresh = Bucket::full(limits::REFUSED_TOKENS, limits::REFUSED_TOKENS_PER_SECOND, now);
        known.entry(one_client(address)).or_insert(fresh).take(now);
    }
}

/// Lets so many log lines through, and counts the others.
#[derive(Debug)]
pub(crate) struct LogPace(Mutex<(Bucket, u64)>);

impl Default for LogPace {
    fn default() -> Self {
        let bucket = Bucket::full(limits::REFUSAL_LINES, limits::REFUSAL_LINES_PER_SECOND, Instant::now());
        Self(Mutex::new((bucket, 0)))
    }
}

impl LogPace {
    /// Whether to write a line now, and how many were left out before it.
    pub(crate) fn next(&self) -> Option<u64> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (bucket, left_out) = &mut *inner;
        if bucket.take(Instant::now()) {
            return Some(std::mem::take(left_out));
        }
        *left_out += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn refusals_of_one_address_are_used_up_and_come_back() {
        let attempts = Attempts::default();
        let (one, other) = ("192.0.2.7".parse().expect("address"), "192.0.2.8".parse().expect("address"));
        for _ in 0..limits::REFUSED_TOKENS as u32 {
            assert!(!attempts.are_used_up(one));
            attempts.refused(one);
        }
        assert!(attempts.are_used_up(one));
        assert!(!attempts.are_used_up(other));
        tokio::time::advance(Duration::from_secs_f64(1.01 / limits::REFUSED_TOKENS_PER_SECOND)).await;
        assert!(!attempts.are_used_up(one));
    }

    #[tokio::test(start_paused = true)]
    async fn any_number_of_addresses_costs_bounded_memory() {
        let attempts = Attempts::default();
        for number in 0..3 * limits::REFUSED_ADDRESSES as u32 {
            attempts.refused(IpAddr::V4(number.into()));
        }
        assert!(attempts.0.lock().expect("not poisoned").len() <= limits::REFUSED_ADDRESSES);
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let client = |text: &str| one_client(text.parse().expect("address"));
        assert_eq!(client("2001:db8:1:2:3:4:5:6"), client("2001:db8:1:2::1"));
        assert_ne!(client("2001:db8:1:2::1"), client("2001:db8:1:3::1"));
        assert_eq!(client("::ffff:192.0.2.7"), client("192.0.2.7"));
        assert_ne!(client("::1"), client("::2"));
    }

    #[tokio::test(start_paused = true)]
    async fn lines_beyond_the_pace_are_counted() {
        let pace = LogPace::default();
        let written = (0..100).filter(|_| pace.next().is_some()).count();
        assert_eq!(written, limits::REFUSAL_LINES as usize);
        tokio::time::advance(Duration::from_mins(10)).await;
        assert_eq!(pace.next(), Some(100 - written as u64));
        assert_eq!(pace.next(), Some(0));
    }
}
