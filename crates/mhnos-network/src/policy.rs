//! Who may be reached: `MHNOS_EGRESS`, as a pure function of a destination.
//!
//! A name is admitted before it is resolved, so that a name that no rule could allow is never asked for out there;
//! then each of its addresses is judged. An address that is not public is opened by a rule for it or its network
//! (`10.0.0.0/8`), or, if it is a private one, by a rule that names the host in full: whoever writes
//! `registry.example.org` trusts that name's addresses. A pattern (`*.example.org`) opens public addresses only. The
//! machine's own addresses, loopback, link-local and metadata addresses need a rule for that very address, and the
//! service's own port is out of reach whatever a rule says.

use std::{fmt, net::IpAddr, ops::RangeInclusive, str::FromStr};

use crate::{
    address::{self, Kind},
    target::{Host, Target, name},
};

/// Mail servers' port: a machine that speaks to many of them is soon nobody's friend.
const SMTP: u16 = 25;

/// What may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    public: bool,
    rules: Vec<Rule>,
}

/// One rule of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    what: What,
    ports: Option<RangeInclusive<u16>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// This name.
    Name(String),
    /// Every name below this one.
    Below(String),
    /// The addresses of a network.
    Net(IpAddr, u8),
}

/// The rule by which something is refused, as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RuleName(pub(crate) &'static str);

/// `MHNOS_EGRESS=off`.
const OFF: RuleName = RuleName("off");
/// No rule of the list allows it.
const NOT_LISTED: RuleName = RuleName("not-listed");
/// The service itself.
const SERVICE: RuleName = RuleName("service");
/// The machine has no address for the name, and the name alone opens nothing.
const UNRESOLVED: RuleName = RuleName("unresolved");
/// Port 25, which `public` leaves out.
const MAIL: RuleName = RuleName("port-25");

impl Default for Egress {
    fn default() -> Self {
        Self { public: true, rules: Vec::new() }
    }
}

impl Egress {
    /// `public`, `off`, or a list of rules and `public`, separated by commas.
    pub fn parse(text: &str) -> Option<Self> {
        let mut egress = Self { public: false, rules: Vec::new() };
        if text.trim() == "off" {
            return Some(egress);
        }
        for item in text.split(',').map(str::trim) {
            match item {
                "public" => egress.public = true,
                "off" => return None,
                item => egress.rules.push(item.parse().ok()?),
            }
        }
        Some(egress)
    }

    /// Whether this name may be resolved and its addresses judged.
    pub(crate) fn admit(&self, target: &Target) -> Result<(), RuleName> {
        if !self.public && self.rules.is_empty() {
            return Err(OFF);
        }
        let listed = self.rules.iter().any(|rule| {
            rule.has_port(target.port)
                && match &target.host {
                    // Its addresses may be listed.
                    Host::Name(name) => rule.names(name) || matches!(rule.what, What::Net(..)),
                    Host::Address(_) => true,
                }
        });
        if self.public || listed { Ok(()) } else { Err(NOT_LISTED) }
    }

    /// Whether a name may be asked for that some port of may be reached.
    pub(crate) fn knows(&self, name: &str) -> bool {
        let listed = |rule: &Rule| rule.names(name) || matches!(rule.what, What::Net(..));
        self.public || self.rules.iter().any(listed)
    }

    /// The rule by which a name is refused that is not known.
    pub(crate) fn unknown(&self) -> RuleName {
        if self.rules.is_empty() { OFF } else { NOT_LISTED }
    }

    /// Whether this address, which `target` is or has been resolved to, may be connected to.
    pub(crate) fn judge(&self, target: &Target, address: IpAddr, machine: &Machine) -> Result<(), RuleName> {
        let address = address::reached(address);
        let kind = match address::kind(address) {
            kind @ Some(Kind::Loopback | Kind::Unspecified) => kind,
            _ if (machine.is_own)(address) => Some(Kind::Own),
            kind => kind,
        };
        let here = matches!(kind, Some(Kind::Loopback | Kind::Unspecified | Kind::Own));
        if here && machine.ports.contains(&target.port) {
            return Err(SERVICE);
        }
        let rules = || self.rules.iter().filter(|rule| rule.has_port(target.port));
        let named = |full: bool| match &target.host {
            Host::Name(name) => rules().any(|rule| rule.names(name) && (!full || rule.is_full_name())),
            Host::Address(_) => false,
        };
        let narrow = kind.is_some_and(Kind::needs_its_own_rule);
        if rules().any(|rule| rule.holds(address, narrow)) {
            return Ok(());
        }
        match kind {
            Some(Kind::Private) if named(true) => Ok(()),
            Some(kind) => Err(RuleName(kind.as_str())),
            None if named(false) => Ok(()),
            None if self.public && target.port == SMTP => Err(MAIL),
            None if self.public => Ok(()),
            None if self.rules.is_empty() => Err(OFF),
            None => Err(NOT_LISTED),
        }
    }

    /// Whether a name may be reached that only the operator's proxy can resolve: by a rule that names it, or as a
    /// public one.
    pub(crate) fn judge_name(&self, target: &Target, machine: &Machine) -> Result<(), RuleName> {
        let Host::Name(name) = &target.host else { return Err(UNRESOLVED) };
        if machine.ports.contains(&target.port) {
            return Err(SERVICE);
        }
        let is_worded = is_worded(name);
        if is_worded && self.rules.iter().any(|rule| rule.has_port(target.port) && rule.names(name)) {
            return Ok(());
        }
        match self.public && is_public_name(name) {
            true if target.port == SMTP => Err(MAIL),
            true => Ok(()),
            false => Err(UNRESOLVED),
        }
    }
}

/// What the policy has to know of the machine.
pub(crate) struct Machine {
    /// Ports of the service.
    pub(crate) ports: Vec<u16>,
    /// Whether an address is one of the machine's own.
    pub(crate) is_own: fn(IpAddr) -> bool,
}

impl Machine {
    /// Whether an address is not reached by way of the outside.
    pub(crate) fn is_inside(&self, address: IpAddr) -> bool {
        address::kind(address).is_some() || (self.is_own)(address::reached(address))
    }
}

/// What is no name of the public DNS: those that RFC 6761 and its followers keep for other uses, and those that private networks use
/// without asking.
const NOT_PUBLIC: [&str; 12] = [
    "alt",
    "arpa",
    "corp",
    "home",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localhost",
    "private",
    "test",
];

/// Whether a name can be one of a public host, by its form.
fn is_public_name(name: &str) -> bool {
    let last = name.rsplit_once('.').map(|(_, last)| last);
    last.is_some_and(|last| !NOT_PUBLIC.contains(&last)) && is_worded(name)
}

impl Rule {
    fn has_port(&self, port: u16) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&port))
    }

    fn is_full_name(&self) -> bool {
        matches!(self.what, What::Name(_))
    }

    fn names(&self, name: &str) -> bool {
        match &self.what {
            What::Name(known) => known == name,
            What::Below(parent) => {
                name.strip_suffix(parent.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            What::Net(..) => false,
        }
    }

    /// Whether this rule is for a network that holds the address, or, if `narrow`, for the address alone.
    fn holds(&self, address: IpAddr, narrow: bool) -> bool {
        match (&self.what, address) {
            (What::Net(IpAddr::V4(net), length), IpAddr::V4(address)) => {
                (!narrow || *length == 32)
                    && u64::from(net.to_bits() ^ address.to_bits()) >> (32 - u32::from(*length)) == 0
            }
            (What::Net(IpAddr::V6(net), length), IpAddr::V6(address)) => {
                let differing = net.to_bits() ^ address.to_bits();
                (!narrow || *length == 128) && differing.leading_zeros() >= u32::from(*length)
            }
            _ => false,
        }
    }
}

impl FromStr for Rule {
    type Err = ();

    /// `example.org`, `*.example.org`, `10.0.0.0/8`, `192.168.1.7`, `[fd00::]/8`, each also with `:PORT` or
    /// `:FIRST-LAST`; IPv6 in brackets if there is a port.
    fn from_str(text: &str) -> Result<Self, ()> {
        if let Ok(what) = network(text) {
            return Ok(Self { what, ports: None });
        }
        let (host, ports) = match text.rsplit_once(':') {
            Some((host, range)) => (host, Some(ports(range).ok_or(())?)),
            None => (text, None),
        };
        let what = match host.strip_prefix("*.") {
            Some(parent) => What::Below(name(parent).filter(|name| is_worded(name)).ok_or(())?),
            None => match network(host) {
                Ok(net) => net,
                Err(()) => What::Name(name(host).filter(|name| is_worded(name)).ok_or(())?),
            },
        };
        Ok(Self { what, ports })
    }
}

/// Not a number in some spelling: `10.0.0.300`, `127.1`. An address must be written as one.
fn is_worded(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let hexadecimal =
        last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    !hexadecimal && !last.bytes().all(|byte| byte.is_ascii_digit())
}

fn network(text: &str) -> Result<What, ()> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u8>().map_err(|_| ())?)),
        None => (text, None),
    };
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address: IpAddr = bare.unwrap_or(address).parse().map_err(|_| ())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = length.unwrap_or(most);
    let rule = What::Net(address, length);
    let base = match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    };
    // A network written with bits of a host in it is more likely a mistake than a network.
    let clean = length <= most && base.checked_shl(length.into()).unwrap_or(0) == 0;
    // As which no address is judged.
    let plain = address::reached(address) == address;
    if clean && plain { Ok(rule) } else { Err(()) }
}

fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let range = port(first)?..=port(last)?;
    (!range.is_empty()).then_some(range)
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.public && self.rules.is_empty() {
            return f.write_str("off");
        }
        let public = self.public.then(|| "public".to_owned());
        let items: Vec<String> =
            public.into_iter().chain(self.rules.iter().map(ToString::to_string)).collect();
        f.write_str(&items.join(","))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Name(name) => f.write_str(name)?,
            What::Below(parent) => write!(f, "*.{parent}")?,
            What::Net(IpAddr::V6(net), length) => write!(f, "[{net}]/{length}")?,
            What::Net(net, length) => write!(f, "{net}/{length}")?,
        }
        match &self.ports {
            Some(ports) if ports.start() == ports.end() => write!(f, ":{}", ports.start()),
            Some(ports) => write!(f, ":{}-{}", ports.start(), ports.end()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
