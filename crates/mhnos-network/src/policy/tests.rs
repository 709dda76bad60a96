//! The policy, by what an operator writes and a program wants.

use std::net::IpAddr;

use proptest::prelude::*;

use super::{Egress, Machine};
use crate::target::Target;

/// The machine of these tests: 192.0.2.2 is its own, and the service listens on 18790.
const MACHINE: fn() -> Machine = || Machine {
    ports: vec![18790],
    is_own: |address| address == IpAddr::from([192, 0, 2, 2]) || address == IpAddr::from([10, 9, 9, 9]),
};

fn verdict(setting: &str, host: &str, port: u16, address: &str) -> Result<(), &'static str> {
    let egress = Egress::parse(setting).expect("a setting");
    let target = Target::parse(host, port).expect("a target");
    let address = address.parse().expect("an address");
    egress.admit(&target).and_then(|()| egress.judge(&target, address, &MACHINE())).map_err(|rule| rule.0)
}

fn check(setting: &str, host: &str, port: u16, address: &str, expected: Result<(), &str>) {
    assert_eq!(verdict(setting, host, port, address), expected, "{setting}: {host}:{port} at {address}");
}

#[test]
fn public_is_every_public_address_and_no_other() {
    check("public", "example.org", 443, "203.0.113.80", Ok(()));
    check("public", "example.org", 8443, "2606:4700::1", Ok(()));
    check("public", "example.org", 443, "10.0.0.1", Err("private"));
    check("public", "example.org", 443, "::ffff:10.0.0.1", Err("private"));
    check("public", "example.org", 80, "169.254.169.254", Err("metadata"));
    check("public", "10.0.0.1", 443, "10.0.0.1", Err("private"));
    check("public", "example.org", 80, "192.0.2.2", Err("own-address"));
    check("public", "[64:ff9b::c000:202]", 80, "64:ff9b::192.0.2.2", Err("own-address"));
    check("public", "example.org", 80, "64:ff9b::203.0.113.80", Ok(()));
    check("public", "example.org", 25, "203.0.113.80", Err("port-25"));
    check("public,mail.example.org:25", "mail.example.org", 25, "203.0.113.80", Ok(()));
}

#[test]
fn off_is_nothing() {
    check("off", "example.org", 443, "203.0.113.80", Err("off"));
    check("off", "203.0.113.80", 443, "203.0.113.80", Err("off"));
}

#[test]
fn a_list_is_what_it_says() {
    let list = "registry.example.org,*.example.com:443,203.0.113.0/24:8000-8010";
    check(list, "registry.example.org", 443, "203.0.113.80", Ok(()));
    check(list, "registry.example.org", 22, "203.0.113.80", Ok(()));
    check(list, "Registry.Example.org.", 443, "203.0.113.80", Ok(()));
    check(list, "evil.registry.example.org", 443, "198.51.100.1", Err("not-listed"));
    check(list, "a.example.com", 443, "198.51.100.1", Ok(()));
    check(list, "a.b.example.com", 443, "198.51.100.1", Ok(()));
    check(list, "a.example.com", 80, "198.51.100.1", Err("not-listed"));
    check(list, "example.com", 443, "198.51.100.1", Err("not-listed"));
    check(list, "evilexample.com", 443, "198.51.100.1", Err("not-listed"));
    check(list, "203.0.113.7", 8005, "203.0.113.7", Ok(()));
    check(list, "203.0.113.7", 8011, "203.0.113.7", Err("not-listed"));
    check(list, "anything.example.net", 8005, "203.0.113.7", Ok(()));
    check(list, "anything.example.net", 8005, "198.51.100.1", Err("not-listed"));
}

#[test]
fn what_is_not_public_is_opened_on_purpose_only() {
    check("10.0.0.0/8", "10.1.2.3", 5432, "10.1.2.3", Ok(()));
    check("10.0.0.0/8", "db.example.org", 5432, "10.1.2.3", Ok(()));
    check("10.0.0.0/8", "10.9.9.9", 80, "10.9.9.9", Err("own-address"));
    check("registry.example.org", "registry.example.org", 443, "10.1.2.3", Ok(()));
    check("registry.example.org", "registry.example.org", 443, "127.0.0.1", Err("loopback"));
    check("registry.example.org", "registry.example.org", 443, "169.254.169.254", Err("metadata"));
    check("registry.example.org", "registry.example.org", 443, "192.0.2.2", Err("own-address"));
    check("*.example.org", "registry.example.org", 443, "10.1.2.3", Err("private"));
    check("0.0.0.0/0", "127.0.0.1", 443, "127.0.0.1", Err("loopback"));
    check("100.64.0.0/10", "100.100.100.200", 80, "100.100.100.200", Err("metadata"));
    check("127.0.0.1:5432", "127.0.0.1", 5432, "127.0.0.1", Ok(()));
    check("127.0.0.1:5432", "127.0.0.1", 5433, "127.0.0.1", Err("not-listed"));
    check("[fd00::]/8", "[fd00::7]", 80, "fd00::7", Ok(()));
    check("[fd00::]/8", "[fd20:ce::254]", 80, "fd20:ce::254", Err("metadata"));
    check("[fd00::]/8", "[fd00:ec2::23]", 80, "fd00:ec2::23", Err("metadata"));
    check("10.0.0.0/8", "example.org", 80, "64:ff9b::10.1.2.3", Ok(()));
    check("10.0.0.0/8", "example.org", 80, "64:ff9b::10.9.9.9", Err("own-address"));
    check("[::]/0", "example.org", 80, "64:ff9b::10.1.2.3", Err("private"));
    check("[::1]:80", "[::1]", 80, "::1", Ok(()));
}

#[test]
fn the_services_own_port_is_never_open() {
    check("127.0.0.1", "127.0.0.1", 18790, "127.0.0.1", Err("service"));
    check("192.0.2.2", "192.0.2.2", 18790, "192.0.2.2", Err("service"));
    check("public,192.0.2.2", "[64:ff9b::c000:202]", 18790, "64:ff9b::192.0.2.2", Err("service"));
    check("192.0.2.2", "192.0.2.2", 18791, "192.0.2.2", Ok(()));
    check("public", "example.org", 18790, "203.0.113.1", Ok(()));
}

#[test]
fn mistakes_in_a_list_are_refused() {
    for text in [
        "",
        ",",
        "public,",
        "on",
        "all the world",
        "*",
        "*.*.example.org",
        "exa*mple.org",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "[fd00::]/129",
        "example.org:0",
        "example.org:99999",
        "example.org:9-8",
        "https://example.org",
        "10.0.0.300",
        "127.1",
        "0x7f000001",
        "::ffff:10.0.0.1",
        "[64:ff9b::]/96",
        "64:ff9b::10.0.0.1",
        "example.org/24",
        "off,public",
    ] {
        let found = Egress::parse(text);
        // One word is a name.
        assert!(found.is_none() || text == "on", "{text}: {found:?}");
    }
}

proptest! {
    #[test]
    fn a_setting_is_read_back_from_what_it_shows(
        public: bool,
        names in proptest::collection::vec("(\\*\\.)?[a-z]{1,8}(\\.[a-z]{1,8}){0,2}(:[1-9][0-9]{0,3}(-9999)?)?", 0..4),
        net: u32, length in 0_u8..=32,
    ) {
        let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
        let net = std::net::Ipv4Addr::from_bits(net & mask);
        let mut items: Vec<String> = names;
        items.push(format!("{net}/{length}"));
        if public {
            items.insert(0, "public".to_owned());
        }
        let text = items.join(",");
        let egress = Egress::parse(&text);
        prop_assume!(egress.is_some());
        let egress = egress.expect("just seen");
        prop_assert_eq!(Egress::parse(&egress.to_string()), Some(egress));
    }

    #[test]
    fn public_opens_no_address_that_is_not_public(bits: u128, port in 1_u16..) {
        let address = IpAddr::V6(std::net::Ipv6Addr::from_bits(bits));
        let target = Target::parse("example.org", port).expect("a target");
        if crate::address::kind(address).is_some() {
            prop_assert!(Egress::default().judge(&target, address, &MACHINE()).is_err());
        }
    }
}
