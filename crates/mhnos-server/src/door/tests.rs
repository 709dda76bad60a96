//! The door, by the requests that stand before it.

use proptest::prelude::*;

use super::{Door, Origin, OriginPattern, Refusal, Visitor};

fn door(listen: &[&str], allowed: &[&str]) -> Door {
    Door::new(
        listen.iter().map(|text| text.parse().expect("address")).collect(),
        allowed.iter().map(|text| OriginPattern::parse(text).expect("pattern")).collect(),
    )
}

fn loopback() -> Door {
    door(&["127.0.0.1", "::1"], &[])
}

fn host(door: &Door, host: &str) -> Result<Visitor, Refusal> {
    door.judge(&[host.as_bytes()], &[])
}

fn origin(door: &Door, origin: &str) -> Result<Visitor, Refusal> {
    door.judge(&[b"localhost:18790"], &[origin.as_bytes()])
}

#[test]
fn loopback_hosts_are_known_on_any_port() {
    for name in [
        "localhost",
        "localhost:18790",
        "LOCALHOST:1",
        "localhost.",
        "127.0.0.1:18790",
        "127.8.9.1",
        "[::1]",
        "[::1]:80",
    ] {
        assert_eq!(host(&loopback(), name), Ok(Visitor::Program), "{name}");
    }
}

#[test]
fn other_hosts_are_refused_even_if_they_look_alike() {
    for name in [
        "evil.example",
        "localhost.evil.example",
        "evil-localhost",
        "127.0.0.1.evil.example",
        "192.0.2.1",
        "[2001:db8::1]",
        "p1000-3000.localhost:18790",
        "0.0.0.0",
    ] {
        assert_eq!(host(&loopback(), name), Err(Refusal::ForeignHost(name.into())), "{name}");
    }
}

#[test]
fn a_malformed_host_is_refused() {
    for name in [
        "",
        ":80",
        "localhost:",
        "localhost:http",
        "localhost:99999",
        "user@localhost",
        "localhost/x",
        "[::1",
        "[::1]x",
        "127.1",
        "a b",
        "127.0.0.1, evil.example",
    ] {
        assert_eq!(host(&loopback(), name), Err(Refusal::BadHost), "{name:?}");
    }
    assert_eq!(loopback().judge(&[], &[]), Err(Refusal::BadHost));
    assert_eq!(loopback().judge(&[b"localhost", b"localhost"], &[]), Err(Refusal::BadHost));
    assert_eq!(loopback().judge(&[b"local\xffhost"], &[]), Err(Refusal::BadHost));
}

#[test]
fn listen_addresses_and_hosts_of_allowed_origins_are_known() {
    let one = door(&["192.0.2.7"], &["https://os.example.org"]);
    assert!(host(&one, "192.0.2.7:18790").is_ok());
    assert!(host(&one, "os.example.org").is_ok());
    assert!(host(&one, "192.0.2.8").is_err());
    let any = door(&["0.0.0.0"], &[]);
    assert!(host(&any, "192.0.2.8").is_ok());
    assert!(host(&any, "evil.example").is_err());
}

#[test]
fn pages_of_this_machine_come_in() {
    for page in [
        "http://localhost:8080",
        "http://localhost",
        "https://localhost:8443",
        "http://127.0.0.1:3000",
        "http://[::1]:3000",
        "https://[::1]",
        "http://127.0.0.2",
    ] {
        assert!(matches!(origin(&loopback(), page), Ok(Visitor::Page(_))), "{page}");
    }
}

#[test]
fn other_pages_are_refused_by_name() {
    for page in [
        "http://evil.example",
        "https://localhost.evil.example",
        "http://localhost.evil.example:8080",
        "http://evillocalhost",
        "http://127.0.0.1.evil.example",
        "http://p1000-3000.localhost:18790",
        "http://localhost@evil.example",
        "http://localhost/",
        "http://localhost:8080/path",
        "file://",
        "file://localhost",
        "chrome-extension://abcdef",
        "ws://localhost",
        "localhost",
        "",
    ] {
        assert_eq!(origin(&loopback(), page), Err(Refusal::ForeignOrigin(page.into())), "{page:?}");
    }
    assert_eq!(origin(&loopback(), "null"), Err(Refusal::NullOrigin));
    let two: [&[u8]; 2] = [b"http://localhost", b"http://localhost"];
    assert_eq!(loopback().judge(&[b"localhost"], &two), Err(Refusal::BadOrigin));
}

#[test]
fn allowed_origins_are_exact_in_scheme_host_and_port() {
    let door =
        door(&["127.0.0.1"], &["https://os.example.org", "http://lab.example:8080", "https://*.example.net"]);
    for page in [
        "https://os.example.org",
        "https://os.example.org:443",
        "http://lab.example:8080",
        "https://a.example.net",
        "https://a.b.example.net",
    ] {
        assert!(origin(&door, page).is_ok(), "{page}");
    }
    for page in [
        "http://os.example.org",
        "https://os.example.org:8443",
        "https://x.os.example.org",
        "http://lab.example",
        "https://example.net",
        "https://evilexample.net",
        "http://a.example.net",
        "https://a.example.net.evil.example",
    ] {
        assert!(origin(&door, page).is_err(), "{page}");
    }
}

#[test]
fn a_refusal_names_the_setting_that_would_allow_it() {
    let refusal = origin(&loopback(), "https://os.example.org").expect_err("refused");
    assert_eq!(refusal.remedy(), "MHNOS_ALLOWED_ORIGINS=https://os.example.org lets these pages in");
}

#[test]
fn patterns_that_would_let_in_more_than_meant_are_no_patterns() {
    for text in [
        "*",
        "https://*",
        "https://*.",
        "https://*.org",
        "https://*.10.0.0.1",
        "https://a.*.example.org",
        "example.org",
        "https://example.org/",
        "ftp://example.org",
        "null",
    ] {
        assert_eq!(OriginPattern::parse(text), None, "{text}");
    }
}

fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9-]{0,8}(\\.[a-z][a-z0-9-]{0,8}){0,3}"
}

proptest! {
    #[test]
    fn nothing_makes_the_door_panic(hosts: Vec<Vec<u8>>, origins: Vec<Vec<u8>>) {
        let hosts: Vec<&[u8]> = hosts.iter().map(Vec::as_slice).collect();
        let origins: Vec<&[u8]> = origins.iter().map(Vec::as_slice).collect();
        let _ = loopback().judge(&hosts, &origins);
    }

    #[test]
    fn arbitrary_text_is_never_let_in_as_a_page(text in "\\PC*") {
        prop_assume!(Origin::parse(&text).is_none_or(|origin| !origin.is_loopback()));
        prop_assert!(origin(&loopback(), &text).is_err());
    }

    #[test]
    fn only_the_name_localhost_itself_is_this_machine(name in name(), port: u16) {
        prop_assume!(name != "localhost");
        let authority = format!("{name}:{port}");
        prop_assert!(host(&loopback(), &authority).is_err());
        let page = format!("http://{name}:{port}");
        prop_assert!(origin(&loopback(), &page).is_err());
        let inside = format!("http://localhost.{name}:{port}");
        prop_assert!(origin(&loopback(), &inside).is_err());
    }

    #[test]
    fn an_allowed_origin_lets_in_itself_and_its_host(name in name(), port: u16, https: bool) {
        let text = format!("{}://{name}:{port}", if https { "https" } else { "http" });
        let door = door(&["127.0.0.1"], &[text.as_str()]);
        prop_assert!(matches!(origin(&door, &text), Ok(Visitor::Page(_))));
        prop_assert!(host(&door, &name).is_ok());
        let longer = format!("http://x{name}:{port}");
        prop_assert!(origin(&door, &longer).is_err());
    }

    #[test]
    fn subdomain_patterns_cover_subdomains_and_nothing_else(parent in "[a-z]{1,6}\\.[a-z]{2,4}", sub in name(), glue in "[a-z0-9-]{1,4}") {
        let pattern = OriginPattern::parse(&format!("https://*.{parent}")).unwrap();
        let covers = |host: String| Origin::parse(&format!("https://{host}")).is_some_and(|o| pattern.covers(&o));
        let inside = format!("{sub}.{parent}");
        prop_assert!(covers(inside));
        prop_assert!(!covers(parent.clone()));
        let glued = format!("{glue}{parent}");
        prop_assert!(!covers(glued));
        let behind = format!("{parent}.{sub}");
        let really_inside = behind.ends_with(&format!(".{parent}"));
        prop_assert_eq!(covers(behind), really_inside);
    }

    #[test]
    fn origins_read_back_as_they_are_shown(name in name(), port: u16, https: bool) {
        let text = format!("{}://{name}:{port}", if https { "https" } else { "http" });
        let origin = Origin::parse(&text).unwrap();
        prop_assert_eq!(Origin::parse(&origin.to_string()), Some(origin));
    }
}

/// Each letter in either case.
fn cased(text: &'static str) -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<bool>(), text.len()).prop_map(move |upper| {
        let letter = |(letter, upper): (char, bool)| if upper { letter.to_ascii_uppercase() } else { letter };
        text.chars().zip(upper).map(letter).collect()
    })
}

/// What looks like this machine, to a person or to a careless parser, and is another.
fn look_alike() -> impl Strategy<Value = String> {
    let own = prop_oneof![Just("localhost"), Just("127.0.0.1"), Just("[::1]")];
    let behind = prop_oneof![
        Just(".evil.example"),
        Just("@evil.example"),
        Just("#.evil.example"),
        Just("?.evil.example"),
        Just("%2eevil.example"),
        Just("\\.evil.example"),
        Just(".."),
        Just("\u{2024}"),
        Just("%00"),
        Just("\0"),
        Just(";"),
        Just(","),
        Just(" "),
        Just("\t"),
        Just(":80:80"),
        Just(":0x50"),
        Just(":+80"),
        Just(":-1"),
        Just(":65536"),
        Just(":"),
        Just("/"),
        Just("/x"),
    ];
    let before = prop_oneof![
        Just("evil.example@"),
        Just("user:word@"),
        Just("evil-"),
        Just("evil."),
        Just("."),
        Just(" "),
        Just("//"),
        Just("xn--"),
        Just("%6c"),
    ];
    let names = prop_oneof![
        Just("l\u{43e}calhost".to_owned()),
        Just("xn--lcalhost-4cf".to_owned()),
        Just("ｌｏｃａｌｈｏｓｔ".to_owned()),
        Just("localhost\u{ad}".to_owned()),
        Just("1۲7.0.0.1".to_owned()),
        Just("127.0.0.1.".to_owned()),
        Just("127.1".to_owned()),
        Just("0177.0.0.1".to_owned()),
        Just("0x7f.0.0.1".to_owned()),
        Just("2130706433".to_owned()),
        Just("127.0.0.01".to_owned()),
        Just("::1".to_owned()),
        Just("[::1%25lo]".to_owned()),
        Just("[::1%lo]".to_owned()),
        Just("[::127.0.0.1]".to_owned()),
        Just("[127.0.0.1]".to_owned()),
        Just("[localhost]".to_owned()),
        Just("[fe80::1]".to_owned()),
        Just("[64:ff9b::7f00:1]".to_owned()),
        Just("[::]".to_owned()),
        Just("0".to_owned()),
        Just("localhost.localdomain".to_owned()),
        Just("ip6-localhost".to_owned()),
    ];
    prop_oneof![
        (own.clone(), behind).prop_map(|(own, behind)| format!("{own}{behind}")),
        (before, own).prop_map(|(before, own)| format!("{before}{own}")),
        names,
    ]
}

proptest! {
    #[test]
    fn look_alikes_are_let_in_neither_as_hosts_nor_as_pages(text in look_alike(), https: bool) {
        prop_assert!(host(&loopback(), &text).is_err(), "{text:?} as a host");
        let page = format!("{}://{text}", if https { "https" } else { "http" });
        prop_assert!(origin(&loopback(), &page).is_err(), "{page:?}");
    }

    #[test]
    fn case_makes_no_difference(name in cased("localhost"), scheme in cased("https"), allowed in cased("os.example.org")) {
        prop_assert!(host(&loopback(), &name).is_ok());
        let page = format!("{scheme}://{name}:1");
        prop_assert!(origin(&loopback(), &page).is_ok(), "{page}");
        let door = door(&["127.0.0.1"], &["https://os.example.org"]);
        let page = format!("{scheme}://{allowed}");
        prop_assert!(origin(&door, &page).is_ok(), "{page}");
        prop_assert!(host(&door, &allowed).is_ok());
    }

    #[test]
    fn every_spelling_of_an_address_is_that_address(address: std::net::Ipv6Addr, port: u16) {
        let segments = address.segments();
        let long = segments.map(|segment| format!("{segment:04X}")).join(":");
        let own = address.to_canonical().is_loopback();
        for text in [format!("[{address}]:{port}"), format!("[{long}]")] {
            prop_assert_eq!(host(&loopback(), &text).is_ok(), own, "{}", text);
            let page = format!("http://{text}");
            prop_assert_eq!(origin(&loopback(), &page).is_ok(), own, "{}", text);
        }
        let listening = Door::new(vec![address.into()], Vec::new());
        let text = format!("[{long}]:{port}");
        prop_assert!(host(&listening, &text).is_ok(), "{text}");
        let one = "[0:0:0:0:0:0:0:1]";
        prop_assert!(host(&loopback(), one).is_ok());
    }

    #[test]
    fn ipv4_addresses_are_known_by_loopback_and_by_listening(address: std::net::Ipv4Addr, other: std::net::Ipv4Addr) {
        prop_assume!(!other.is_unspecified());
        let door = Door::new(vec![other.into()], Vec::new());
        prop_assert_eq!(host(&door, &address.to_string()).is_ok(), address.is_loopback() || address == other);
        let page = format!("http://{address}");
        prop_assert_eq!(origin(&door, &page).is_ok(), address.is_loopback());
    }

    #[test]
    fn a_header_that_is_missing_or_there_twice_is_refused(hosts in 0_usize..4, origins in 0_usize..4) {
        let hosts: Vec<&[u8]> = vec![b"localhost"; hosts];
        let origins: Vec<&[u8]> = vec![b"http://localhost"; origins];
        let fine = hosts.len() == 1 && origins.len() < 2;
        prop_assert_eq!(loopback().judge(&hosts, &origins).is_ok(), fine);
    }

    #[test]
    fn a_port_is_a_number_or_nothing(port in "[ -~]{0,7}") {
        let fine = port.bytes().all(|c| c.is_ascii_digit()) && port.parse::<u16>().is_ok();
        let authority = format!("localhost:{port}");
        prop_assert_eq!(host(&loopback(), &authority).is_ok(), fine, "{}", authority);
        let page = format!("http://localhost:{port}");
        prop_assert_eq!(origin(&loopback(), &page).is_ok(), fine, "{}", page);
    }
}
