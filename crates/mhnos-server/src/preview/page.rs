//! What a person sees where a preview shows nothing: why, and what comes next. Programs get the same as a line of
//! text. Nothing is fetched from anywhere.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderValue},
};

use super::{Body, name::Name};

/// Tells a page that waits that it has reached the service, not the process.
const WAITING: &str = "mhnos-preview";

/// Asks until somebody else answers, then loads that.
const RELOAD: &str = "<script>setInterval(async()=>{try{const r=await fetch(location.href,{method:'HEAD',\
    cache:'no-store'});if(!r.headers.has('mhnos-preview'))location.reload()}catch{}},300)</script>\
    <noscript><meta http-equiv=\"refresh\" content=\"1\"></noscript>";

/// Why there is nothing to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Nothing {
    /// No such process, or it has ended, or the name is not its own.
    Unknown,
    /// It does not listen there (yet).
    Closed,
    /// The request may not reach it.
    Refused(String),
    /// All connections are taken.
    Full,
    /// It does not accept, or does not answer.
    Silent,
    /// What it answers is no HTTP, or ends too early.
    Broken(String),
}

/// Whether a request comes from a person's browser, to be shown.
pub(super) fn is_for_a_person(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT);
    accept.is_some_and(|accept| accept.as_bytes().windows(9).any(|part| part == b"text/html"))
}

/// The answer.
pub(super) fn nothing(why: &Nothing, name: &Name, person: bool) -> Response<Body> {
    let Name { pid, port, .. } = name;
    let (status, title, text) = match why {
        Nothing::Unknown => (
            StatusCode::NOT_FOUND,
            "No such preview".to_owned(),
            "The process has ended, or there is none with this address.".to_owned(),
        ),
        Nothing::Closed => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("Waiting for port {port}"),
            format!("Process {pid} does not listen on port {port} yet. This page reloads when it does."),
        ),
        Nothing::Refused(text) => (StatusCode::FORBIDDEN, "Not allowed".to_owned(), text.clone()),
        Nothing::Full => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many connections".to_owned(),
            format!("The previews of process {pid} have as many connections as they may. Try again."),
        ),
        Nothing::Silent => (
            StatusCode::GATEWAY_TIMEOUT,
            "No answer".to_owned(),
            format!("Process {pid} does not answer on port {port}."),
        ),
        Nothing::Broken(error) => (
            StatusCode::BAD_GATEWAY,
            "No valid answer".to_owned(),
            format!("What process {pid} answers on port {port} is no whole HTTP answer: {error}."),
        ),
    };
    let body = if person { html(why, &title, &text) } else { format!("{text}\n") };
    let mut answer = Response::new(Body::Left(Full::new(Bytes::from(body))));
    *answer.status_mut() = status;
    let kind = if person { "text/html; charset=utf-8" } else { "text/plain; charset=utf-8" };
    let out = answer.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    out.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    out.insert(WAITING, HeaderValue::from_static("nothing"));
    if matches!(why, Nothing::Closed | Nothing::Full) {
        out.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

fn html(why: &Nothing, title: &str, text: &str) -> String {
    let reload = if *why == Nothing::Closed { RELOAD } else { "" };
    let (title, text) = (escaped(title), escaped(text));
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light dark\">\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:20vh auto;padding:0 1rem}}\
         h1{{font-size:1.3rem}}</style><h1>{title}</h1><p>{text}</p>{reload}</html>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
