//! What must hold for any Host and Origin. The target of `fuzz/` calls this, and so does a test with the corpus and
//! simple changes of it.

use std::net::IpAddr;

use super::{Door, Origin, OriginPattern, Visitor};

/// Header values, parted by line ends: the first byte says how many are Hosts.
pub fn door(bytes: &[u8]) {
    let Some((&hosts, rest)) = bytes.split_first() else { return };
    let values: Vec<&[u8]> = rest.split(|byte| *byte == b'\n').take(6).collect();
    let (hosts, origins) = values.split_at(usize::from(hosts % 3).min(values.len()));
    let listen = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([192, 0, 2, 7])];
    let plain = Door::new(listen.clone(), Vec::new());
    let allowed = ["https://os.example.org", "https://*.example.net"];
    let allowed = allowed.iter().map(|text| OriginPattern::parse(text).expect("a pattern")).collect();
    let open = Door::new(listen, allowed);
    let judged = plain.judge(hosts, origins);
    if let Ok(visitor) = &judged {
        assert!(hosts.len() == 1 && origins.len() <= 1);
        assert!(is_own_host(hosts[0]), "{hosts:?}");
        assert_eq!(origins.is_empty(), *visitor == Visitor::Program);
        assert!(origins.first().is_none_or(|origin| is_loopback_page(origin)), "{origins:?}");
        assert!(open.judge(hosts, origins).is_ok(), "more is allowed, and less is let in");
    }
    for value in values {
        let Ok(text) = str::from_utf8(value) else { continue };
        if let Some(origin) = Origin::parse(text) {
            assert_eq!(Origin::parse(&origin.to_string()).as_ref(), Some(&origin));
        }
        if let Some(pattern) = OriginPattern::parse(text) {
            assert_eq!(OriginPattern::parse(&pattern.to_string()).as_ref(), Some(&pattern));
        }
    }
}

/// The same decision, made in another way: by what text is left when everything that may be there is taken off.
pub(crate) fn is_own_host(host: &[u8]) -> bool {
    let Ok(host) = str::from_utf8(host) else { return false };
    let host = host.to_ascii_lowercase();
    let without_port = match host.rsplit_once(':') {
        Some((front, port)) if port.bytes().all(|c| c.is_ascii_digit()) && !front.ends_with(':') => front,
        _ => host.as_str(),
    };
    is_loopback(without_port)
        || without_port == "192.0.2.7"
        || without_port == "[::ffff:192.0.2.7]"
        || mapped(without_port)
}

/// An IPv6 spelling of the listening address.
fn mapped(host: &str) -> bool {
    let inside = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inside
        .and_then(|text| text.parse::<IpAddr>().ok())
        .is_some_and(|a| a.to_canonical() == IpAddr::from([192, 0, 2, 7]))
}

pub(crate) fn is_loopback_page(origin: &[u8]) -> bool {
    let Ok(origin) = str::from_utf8(origin) else { return false };
    let origin = origin.to_ascii_lowercase();
    let Some(rest) = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) else {
        return false;
    };
    let host = match rest.rsplit_once(':') {
        Some((front, port)) if port.bytes().all(|c| c.is_ascii_digit()) && !front.ends_with(':') => front,
        _ => rest,
    };
    is_loopback(host)
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match bare {
        Some(text) => text.parse::<IpAddr>().is_ok_and(|a| a.is_ipv6() && a.to_canonical().is_loopback()),
        None => {
            matches!(host, "localhost" | "localhost.")
                || host.parse::<std::net::Ipv4Addr>().is_ok_and(|a| a.is_loopback())
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_header_surprises() {
        mhnos_testing::replay("door", super::door);
    }
}
