//! What is refused is told: to the log and to clients who asked, once for a burst and not faster than somebody can read.
//! Each sandbox has an allowance of its own: the noise of one keeps nothing of another from being told.

use std::{collections::VecDeque, time::Instant};

use tokio::sync::broadcast;

use crate::{
    gateway::Owner,
    limits::{BURST, REFUSAL_INTERVAL, REFUSALS_AT_ONCE, REFUSALS_WAITING},
};

/// How a program asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The HTTP or SOCKS proxy.
    Proxy,
    /// A connection to a port that is caught.
    Connection,
    /// A question for a name.
    Name,
}

impl Via {
    /// The word used in the log and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Connection => "connection",
            Self::Name => "name",
        }
    }
}

/// A refusal, or several alike in a short time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Whose sandbox it was.
    pub owner: Owner,
    /// The name or address.
    pub host: String,
    /// `None` for a question for a name.
    pub port: Option<u16>,
    /// The rule that refused.
    pub rule: &'static str,
    /// How it was asked for.
    pub via: Via,
    /// How many: those alike since they were last told, this one included.
    pub count: u64,
    /// How many others of this sandbox were not told before this one, because they were too many.
    pub others: u64,
}

impl Refused {
    fn is_like(&self, other: &Self) -> bool {
        (&self.host, self.port, self.rule, self.via) == (&other.host, other.port, other.rule, other.via)
    }
}

/// Refusals as they come.
#[derive(Debug)]
pub struct Refusals(broadcast::Receiver<Refused>);

impl Refusals {
    /// The next one; what was missed by being slow is counted among its `others`. Never again if the gateway is gone.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Refused {
        let mut missed = 0;
        loop {
            match self.0.recv().await {
                Ok(mut refused) => {
                    refused.others += missed;
                    return refused;
                }
                Err(broadcast::error::RecvError::Lagged(count)) => missed += count,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// Tells of refusals.
#[derive(Debug)]
pub(crate) struct Reporter {
    listeners: broadcast::Sender<Refused>,
}

impl Default for Reporter {
    fn default() -> Self {
        Self { listeners: broadcast::Sender::new(REFUSALS_WAITING) }
    }
}

impl Reporter {
    pub(crate) fn subscribe(&self) -> Refusals {
        Refusals(self.listeners.subscribe())
    }

    pub(crate) fn tell(&self, refused: Refused) {
        tracing::warn!(
            process = refused.owner.0,
            host = refused.host,
            port = refused.port,
            rule = refused.rule,
            via = refused.via.as_str(),
            count = refused.count,
            others_not_told = refused.others,
            "refused a way out (MHNOS_EGRESS)"
        );
        // Nobody may have asked.
        _ = self.listeners.send(refused);
    }
}

/// What has been told of one sandbox.
#[derive(Debug)]
pub(crate) struct Told {
    /// Told lately, oldest first, each with how many of its like have come since.
    recent: VecDeque<(Instant, Refused)>,
    /// How many different ones may be told now, and since when.
    allowance: u32,
    since: Instant,
    /// Not told at all, since the last that was.
    dropped: u64,
}

impl Default for Told {
    fn default() -> Self {
        Self { recent: VecDeque::new(), allowance: REFUSALS_AT_ONCE, since: Instant::now(), dropped: 0 }
    }
}

impl Told {
    /// What is to be told now.
    pub(crate) fn admit(&mut self, mut refused: Refused, now: Instant) -> Option<Refused> {
        let known = self.recent.iter_mut().find(|(_, other)| other.is_like(&refused));
        if let Some((when, other)) = known {
            if now.duration_since(*when) < BURST {
                other.count += 1;
                return None;
            }
            refused.count = other.count + 1;
        }
        let earned = (now.duration_since(self.since).as_millis() / REFUSAL_INTERVAL.as_millis()) as u32;
        if earned > 0 {
            self.since = now;
            self.allowance = self.allowance.saturating_add(earned).min(REFUSALS_AT_ONCE);
        }
        if self.allowance == 0 {
            self.dropped += 1;
            return None;
        }
        self.allowance -= 1;
        self.recent.retain(|(_, other)| !other.is_like(&refused));
        if self.recent.len() >= REFUSALS_WAITING {
            self.recent.pop_front();
        }
        // What comes now is counted from nothing.
        refused.others = std::mem::take(&mut self.dropped);
        self.recent.push_back((now, Refused { count: 0, ..refused.clone() }));
        Some(refused)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn refused(host: &str) -> Refused {
        Refused {
            owner: Owner(None),
            host: host.to_owned(),
            port: Some(80),
            rule: "private",
            via: Via::Proxy,
            count: 1,
            others: 0,
        }
    }

    #[test]
    fn a_burst_is_told_once_and_then_with_its_size() {
        let mut told = Told::default();
        let start = Instant::now();
        assert!(told.admit(refused("a"), start).is_some());
        for _ in 0..5 {
            assert_eq!(told.admit(refused("a"), start), None);
        }
        let later = told.admit(refused("a"), start + BURST).expect("told");
        assert_eq!((later.count, later.others), (6, 0));
    }

    #[test]
    fn many_different_ones_are_told_at_a_readable_rate() {
        let mut told = Told::default();
        let start = Instant::now();
        let many = (0..1000).filter(|n| told.admit(refused(&n.to_string()), start).is_some()).count();
        assert_eq!(many, REFUSALS_AT_ONCE as usize);
        let later = start + REFUSAL_INTERVAL + Duration::from_millis(1);
        let told = told.admit(refused("later"), later).expect("told");
        assert_eq!(told.others, 1000 - u64::from(REFUSALS_AT_ONCE));
    }
}
