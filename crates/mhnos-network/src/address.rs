//! What an address is, in whatever form it is written: the part of the policy that no setting changes.
//!
//! Lists are those of RFC 6890 and the IANA registries of special-purpose addresses, with one exception: networks
//! for documentation (192.0.2.0/24, 203.0.113.0/24, …) count as public. They are routed nowhere unless somebody did
//! so on purpose. For IPv6 it is the other way round: only what IANA has given out as global (2000::/3) is public, so
//! that a form nobody thought of is refused; and what stands for an IPv4 address is that address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// What keeps an address from being public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Unspecified,
    Loopback,
    Private,
    LinkLocal,
    Metadata,
    Multicast,
    Reserved,
    Own,
}

impl Kind {
    /// The name of the rule that refuses it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::Metadata => "metadata",
            Self::Multicast => "multicast",
            Self::Reserved => "reserved",
            Self::Own => "own-address",
        }
    }

    /// Whether only a rule for this very address opens it. A network that an operator opens holds the service's own
    /// address often enough, and nobody means that.
    pub(crate) fn needs_its_own_rule(self) -> bool {
        match self {
            Self::Private | Self::Reserved | Self::Multicast => false,
            Self::Unspecified | Self::Loopback | Self::LinkLocal | Self::Metadata | Self::Own => true,
        }
    }
}

/// Where clouds tell machines their secrets. The ones in other ranges are here because a rule for that range must not
/// open them.
const METADATA: [IpAddr; 8] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// The form in which an address is connected to: an IPv4 address in its own family.
pub(crate) fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// The address that is reached in the end, and so the one that is judged: the IPv4 address that one of NAT64 stands for
/// (RFC 6052). The prefix is not refused as a whole, because where it works it is the way to all of IPv4. Prefixes
/// that a network has chosen for itself look like any other address.
pub(crate) fn reached(address: IpAddr) -> IpAddr {
    match plain(address) {
        IpAddr::V6(v6) if matches!(v6.segments(), [0x64, 0xff9b, 0, 0, 0, 0, _, _]) => last_32(v6).into(),
        address => address,
    }
}

/// What this address is if it is not public. Without [`Kind::Own`], which the machine knows and not the address.
pub(crate) fn kind(address: IpAddr) -> Option<Kind> {
    let address = reached(address);
    if METADATA.contains(&address) {
        return Some(Kind::Metadata);
    }
    match address {
        IpAddr::V4(v4) => kind_v4(v4),
        IpAddr::V6(v6) => kind_v6(v6),
    }
}

fn kind_v4(address: Ipv4Addr) -> Option<Kind> {
    match address.octets() {
        [0, ..] => Some(Kind::Unspecified),
        [127, ..] => Some(Kind::Loopback),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Some(Kind::Private),
        [169, 254, ..] => Some(Kind::LinkLocal),
        [224..=239, ..] => Some(Kind::Multicast),
        // Protocol assignments, 6to4 relays, benchmarks (ours: the addresses programs are told for names), the rest.
        [192, 0, 0, _] | [192, 88, 99, _] | [198, 18..=19, ..] | [240..=255, ..] => Some(Kind::Reserved),
        _ => None,
    }
}

fn kind_v6(address: Ipv6Addr) -> Option<Kind> {
    let segments = address.segments();
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(Kind::Unspecified),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(Kind::Loopback),
        // The second are site-local, deprecated and still routed here and there (RFC 3879).
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Some(Kind::Private),
        [0xfe80..=0xfebf, ..] => Some(Kind::LinkLocal),
        [0xff00..=0xffff, ..] => Some(Kind::Multicast),
        // Teredo and other protocol assignments (2001::/23), 6to4: tunnels to an IPv4 address inside.
        [0x2001, 0..=0x1ff, ..] | [0x2002, ..] => Some(Kind::Reserved),
        [0x2000..=0x3fff, ..] => None,
        // IPv4-compatible addresses (RFC 4291, 2.5.5.1) are among these.
        _ => Some(Kind::Reserved),
    }
}

fn last_32(address: Ipv6Addr) -> Ipv4Addr {
    let octets = address.octets();
    Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15])
}

/// Whether this machine itself has this address, on whatever interface, now.
///
/// A datagram socket that is connected sends nothing; the kernel chooses the address it would send from, and for a
/// destination of the machine's own that is the destination.
pub fn is_own(address: IpAddr) -> bool {
    let any = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let from = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(SocketAddr::from((address, 9)))?;
        socket.local_addr()
    });
    from.is_ok_and(|from| from.ip() == address)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let address: IpAddr = text.parse().expect("an address");
        assert_eq!(kind(address).map(Kind::as_str), expected, "{text}");
    }

    #[test]
    fn every_kind_of_address_that_is_not_public_is_known() {
        check("0.0.0.0", Some("unspecified"));
        check("0.1.2.3", Some("unspecified"));
        check("10.0.0.1", Some("private"));
        check("100.64.0.1", Some("private"));
        check("100.127.255.255", Some("private"));
        check("127.0.0.1", Some("loopback"));
        check("127.255.255.254", Some("loopback"));
        check("169.254.0.1", Some("link-local"));
        check("169.254.169.254", Some("metadata"));
        check("172.16.0.1", Some("private"));
        check("172.31.255.255", Some("private"));
        check("192.0.0.1", Some("reserved"));
        check("192.88.99.1", Some("reserved"));
        check("192.168.1.1", Some("private"));
        check("198.18.0.7", Some("reserved"));
        check("198.19.255.255", Some("reserved"));
        check("224.0.0.1", Some("multicast"));
        check("240.0.0.1", Some("reserved"));
        check("255.255.255.255", Some("reserved"));
        check("168.63.129.16", Some("metadata"));
        check("100.100.100.200", Some("metadata"));
        check("::", Some("unspecified"));
        check("::1", Some("loopback"));
        check("fc00::1", Some("private"));
        check("fd00:ec2::254", Some("metadata"));
        check("fd00:ec2::23", Some("metadata"));
        check("fd20:ce::254", Some("metadata"));
        check("fe80::1", Some("link-local"));
        check("fec0::1", Some("private"));
        check("ff02::1", Some("multicast"));
        check("100::1", Some("reserved"));
        check("64:ff9b:1::1", Some("reserved"));
        check("4000::1", Some("reserved"));
    }

    #[test]
    fn an_address_in_another_ones_clothes_is_what_it_is() {
        check("::ffff:127.0.0.1", Some("loopback"));
        check("::ffff:a9fe:a9fe", Some("metadata"));
        check("::ffff:10.1.2.3", Some("private"));
        check("::127.0.0.1", Some("reserved"));
        check("64:ff9b::10.0.0.1", Some("private"));
        check("64:ff9b::169.254.169.254", Some("metadata"));
        check("64:ff9b::8.8.8.8", None);
        check("2002:7f00:1::1", Some("reserved"));
        check("2001:0:7f00:1::1", Some("reserved"));
    }

    #[test]
    fn public_addresses_are_public() {
        for text in ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.32.0.1", "203.0.113.80"] {
            check(text, None);
        }
        for text in ["2606:4700:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8", "2001:4860:4860::8888"] {
            check(text, None);
        }
    }

    #[test]
    fn the_machines_own_addresses_are_found_out() {
        assert!(is_own("127.0.0.1".parse().expect("an address")));
        assert!(!is_own("203.0.113.255".parse().expect("an address")));
    }

    proptest! {
        #[test]
        fn no_form_of_an_ipv4_address_is_freer_than_the_address(bits: u32) {
            let v4 = Ipv4Addr::from_bits(bits);
            let expected = kind(IpAddr::V4(v4));
            let bits = u128::from(bits);
            let mapped = Ipv6Addr::from_bits(0xffff << 32 | bits);
            prop_assert_eq!(kind(IpAddr::V6(mapped)), expected);
            let nat64 = Ipv6Addr::from_bits(0x64_ff9b << 96 | bits);
            prop_assert_eq!(kind(IpAddr::V6(nat64)), expected);
            let sixtofour = Ipv6Addr::from_bits(0x2002 << 112 | bits << 80 | 1);
            prop_assert!(kind(IpAddr::V6(sixtofour)).is_some());
            let compatible = Ipv6Addr::from_bits(bits);
            prop_assert!(kind(IpAddr::V6(compatible)).is_some());
            let teredo = Ipv6Addr::from_bits(0x2001_0000 << 96 | bits ^ 0xffff_ffff);
            prop_assert!(kind(IpAddr::V6(teredo)).is_some());
        }

        #[test]
        fn ipv6_is_public_only_where_it_is_global(bits: u128) {
            let address = Ipv6Addr::from_bits(bits);
            let mapped = address.to_ipv4_mapped().is_some();
            let nat64 = bits >> 32 == 0x64_ff9b << 64;
            if kind(IpAddr::V6(address)).is_none() && !mapped && !nat64 {
                prop_assert_eq!(bits >> 125, 1);
            }
        }
    }
}
