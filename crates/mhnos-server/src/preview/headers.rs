//! Header fields between two hops. What concerns one connection only stays there (RFC 9110, section 7.6.1); names of
//! the preview become those the process knows itself by, and back.
//!
//! The process is asked for as `localhost:<port>`, whatever the browser called it: development servers refuse names
//! that they do not know (DNS rebinding), and every one knows this. What the browser said is in X-Forwarded-Host.

use hyper::{
    HeaderMap,
    header::{self, HeaderName, HeaderValue},
};

use super::{Client, judge::Page, name::is_forwarded_secure};
use crate::door::OriginPattern;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Fields that end at each hop, beside those that Connection names.
const OF_ONE_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The protocol a message asks or agrees to change to, if any.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut listed = listed(headers);
    listed
        .any(|name| name.eq_ignore_ascii_case("upgrade"))
        .then(|| headers.get(header::UPGRADE).cloned())
        .flatten()
}

fn listed(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::CONNECTION).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

fn end_hop(headers: &mut HeaderMap) {
    // Of two ends a coding's is the one that counts (RFC 9112, section 6.3), and it ends here.
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    let named: Vec<HeaderName> = listed(headers).filter_map(|name| name.parse().ok()).collect();
    for name in named.iter().chain(&OF_ONE_HOP) {
        headers.remove(name);
    }
}

/// What a request's own names are, for the way back.
#[derive(Debug)]
pub(super) struct Names {
    /// `http://p1000-3000.localhost:18790`.
    preview: String,
    /// `localhost:3000`.
    process: String,
}

impl Names {
    pub(super) fn of(headers: &HeaderMap, port: u16, secure: bool) -> Self {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let scheme = if secure || is_forwarded_secure(headers) { "https" } else { "http" };
        Self { preview: format!("{scheme}://{host}"), process: format!("localhost:{port}") }
    }

    /// The rest of an absolute address, if it leads to the preview.
    fn below<'t>(&self, text: &'t str) -> Option<&'t str> {
        let rest = text.strip_prefix(self.preview.as_str())?;
        (rest.is_empty() || rest.starts_with(['/', '?', '#'])).then_some(rest)
    }
}

/// Makes a request the process's.
pub(super) fn toward_process(headers: &mut HeaderMap, names: &Names, page: Page, client: Client, port: u16) {
    let upgrade = upgrade(headers);
    end_hop(headers);
    // The body is asked for when the process reads it: that is when the client is told to go on.
    headers.remove(header::EXPECT);
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    if page == Page::Own && headers.contains_key(header::ORIGIN) && headers[header::ORIGIN] != "null" {
        set(headers, header::ORIGIN, &format!("http://{}", names.process));
    }
    let referer = headers.get(header::REFERER).and_then(|referer| referer.to_str().ok());
    let referer = referer
        .and_then(|referer| names.below(referer))
        .map(|rest| format!("http://{}{rest}", names.process));
    if let Some(referer) = referer {
        set(headers, header::REFERER, &referer);
    }
    let scheme = if names.preview.starts_with("https:") { "https" } else { "http" };
    headers.remove(header::FORWARDED);
    headers.remove("x-forwarded-port");
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    set(headers, FORWARDED_FOR, &client.peer.ip().to_canonical().to_string());
    if let Some(host) = headers.insert(header::HOST, local(port)) {
        headers.insert(FORWARDED_HOST, host);
    }
}

/// Replaces a field, by what is text for a header as it was made of such.
fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

fn local(port: u16) -> HeaderValue {
    HeaderValue::from_str(&format!("localhost:{port}")).unwrap_or(HeaderValue::from_static("localhost"))
}

/// Makes an answer the preview's. `keyed`: its name is a secret, which links must not carry away.
pub(super) fn toward_client(headers: &mut HeaderMap, names: &Names, keyed: bool, framers: &HeaderValue) {
    let upgrade = upgrade(headers);
    end_hop(headers);
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    // Another place to get the same would be out of the sandbox, or not the preview's.
    headers.remove(header::ALT_SVC);
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let location = location.and_then(|location| returned(location, names));
    if let Some(location) = location {
        set(headers, header::LOCATION, &location);
    }
    if headers.contains_key(header::SET_COOKIE) {
        let cookies: Vec<_> = headers.get_all(header::SET_COOKIE).iter().filter_map(of_this_host).collect();
        headers.remove(header::SET_COOKIE);
        for cookie in cookies {
            headers.append(header::SET_COOKIE, cookie);
        }
    }
    headers.append(header::CONTENT_SECURITY_POLICY, framers.clone());
    if keyed && !headers.contains_key(header::REFERRER_POLICY) {
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    }
}

/// Where a redirect of the process to itself leads, seen from outside.
fn returned(location: &str, names: &Names) -> Option<String> {
    let rest = location.strip_prefix("http://")?;
    let port = names.process.strip_prefix("localhost")?;
    let own = ["localhost", "127.0.0.1", "[::1]"];
    let rest = own.iter().find_map(|host| rest.strip_prefix(host)?.strip_prefix(port))?;
    (rest.is_empty() || rest.starts_with(['/', '?', '#'])).then(|| format!("{}{rest}", names.preview))
}

/// A cookie for this host and no other: without Domain (RFC 6265, section 4.1.2.3). `None` for one that is no text.
fn of_this_host(cookie: &HeaderValue) -> Option<HeaderValue> {
    let text = str::from_utf8(cookie.as_bytes()).ok()?;
    let is_domain = |attribute: &&str| {
        let name = attribute.split('=').next().unwrap_or_default();
        name.trim().eq_ignore_ascii_case("domain")
    };
    let (pair, attributes) = text.split_once(';').map_or((text, None), |(pair, rest)| (pair, Some(rest)));
    let kept =
        attributes.into_iter().flat_map(|rest| rest.split(';')).filter(|attribute| !is_domain(attribute));
    let kept: Vec<&str> = std::iter::once(pair).chain(kept).collect();
    HeaderValue::from_bytes(kept.join(";").as_bytes()).ok()
}

/// Who may show previews in a frame: themselves, and pages that may use the service.
pub(super) fn framers<'p>(allowed: impl Iterator<Item = &'p OriginPattern>) -> HeaderValue {
    let mut text = "frame-ancestors 'self' http://localhost:* https://localhost:* http://127.0.0.1:* \
                    https://127.0.0.1:*"
        .to_owned();
    for pattern in allowed {
        text = format!("{text} {pattern}");
    }
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("frame-ancestors 'self'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        let parsed = lines.iter().map(|(name, value)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
        });
        let mut headers = HeaderMap::new();
        for (name, value) in parsed {
            headers.append(name, value);
        }
        headers
    }

    fn text<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h str> {
        headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect()
    }

    const CLIENT: Client = Client {
        peer: std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9),
        secure: false,
    };

    #[test]
    fn a_request_keeps_its_own_fields_and_loses_those_of_the_hop() {
        let mut headers = map(&[
            ("host", "p1000-3000.localhost:18790"),
            ("connection", "keep-alive, x-hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("expect", "100-continue"),
            ("transfer-encoding", "chunked"),
            ("cookie", "a=b"),
            ("origin", "http://p1000-3000.localhost:18790"),
            ("referer", "http://p1000-3000.localhost:18790/x?y"),
            ("x-forwarded-for", "6.6.6.6"),
        ]);
        let names = Names::of(&headers, 3000, false);
        toward_process(&mut headers, &names, Page::Own, CLIENT, 3000);
        for (name, expected) in [
            ("host", &["localhost:3000"][..]),
            ("connection", &[]),
            ("x-hop", &[]),
            ("te", &[]),
            ("expect", &[]),
            ("transfer-encoding", &[]),
            ("cookie", &["a=b"]),
            ("origin", &["http://localhost:3000"]),
            ("referer", &["http://localhost:3000/x?y"]),
            ("x-forwarded-for", &["127.0.0.1"]),
            ("x-forwarded-host", &["p1000-3000.localhost:18790"]),
            ("x-forwarded-proto", &["http"]),
        ] {
            assert_eq!(text(&headers, name), expected, "{name}");
        }
    }

    #[test]
    fn an_upgrade_passes_and_anothers_origin_stays() {
        let mut headers = map(&[
            ("host", "p1-3.localhost"),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("origin", "http://localhost:5000"),
        ]);
        let names = Names::of(&headers, 3, false);
        toward_process(&mut headers, &names, Page::Allowed, CLIENT, 3);
        assert_eq!(text(&headers, "upgrade"), ["websocket"]);
        assert_eq!(text(&headers, "connection"), ["upgrade"]);
        assert_eq!(text(&headers, "origin"), ["http://localhost:5000"]);
    }

    #[test]
    fn an_answer_leads_back_to_the_preview_and_its_cookies_stay_there() {
        let names = Names { preview: "http://p1-3.localhost:18790".into(), process: "localhost:3".into() };
        for (location, expected) in [
            ("http://localhost:3/login?a", "http://p1-3.localhost:18790/login?a"),
            ("http://127.0.0.1:3", "http://p1-3.localhost:18790"),
            ("http://localhost:33/", "http://localhost:33/"),
            ("http://localhost:3.evil.example/", "http://localhost:3.evil.example/"),
            ("/relative", "/relative"),
            ("https://example.org/", "https://example.org/"),
        ] {
            let mut headers = map(&[
                ("location", location),
                ("set-cookie", "a=b; Domain=localhost; Path=/; HttpOnly"),
                ("set-cookie", "c=d;domain = .example.org"),
                ("set-cookie", "Domain=x"),
                ("alt-svc", "h3=\":443\""),
                ("content-security-policy", "default-src 'self'"),
                ("keep-alive", "timeout=5"),
            ]);
            toward_client(&mut headers, &names, true, &framers(std::iter::empty()));
            assert_eq!(text(&headers, "location"), [expected]);
            assert_eq!(text(&headers, "set-cookie"), ["a=b; Path=/; HttpOnly", "c=d", "Domain=x"]);
            assert_eq!(text(&headers, "content-security-policy").len(), 2);
            assert_eq!(text(&headers, "referrer-policy"), ["same-origin"]);
            assert!(!headers.contains_key("alt-svc") && !headers.contains_key("keep-alive"));
        }
    }
}
