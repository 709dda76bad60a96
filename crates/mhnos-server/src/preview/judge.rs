//! Which pages may reach a preview.
//!
//! Its own, and those that may use the service itself. Not those of other previews, which are other programs', nor
//! strangers': a preview of a development server runs what it is told with the rights of whoever looks at it. Anybody
//! may link to a preview, or frame it if `frame-ancestors` lets them: that shows it and tells the other page nothing.
//!
//! Browsers say whose page a request comes from by Origin, and where they leave that out, by Sec-Fetch-Site; pages
//! can forge neither. By plain HTTP to another machine they leave out the second: what has neither counts as the
//! preview's own, since programs' requests are such, too (docs/threat-model.md).

use hyper::{
    Method, Request,
    header::{self, HeaderMap},
};

use crate::door::{Door, Origin};

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("This request has no valid Origin header.")]
    BadOrigin,
    #[error("Pages of {0} may not reach this preview.")]
    Foreign(String),
    #[error("Pages of other sites may not reach this preview.")]
    OtherSite,
    #[error("A preview is no proxy for other hosts.")]
    Proxy,
}

/// Whose page a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// The preview's own, or none.
    Own,
    /// One that may use the service.
    Allowed,
}

/// Judges a request for a preview.
pub(super) fn judge<B>(request: &Request<B>, door: &Door) -> Result<Page, Refusal> {
    if request.method() == Method::CONNECT {
        return Err(Refusal::Proxy);
    }
    let headers = request.headers();
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let site = text("sec-fetch-site");
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (Some(_), Some(_)) => Err(Refusal::BadOrigin),
        (Some(origin), None) => {
            let origin = origin.to_str().map_err(|_| Refusal::BadOrigin)?;
            // A page whose referrer policy hides it says `null` to itself, too.
            if origin == "null" && site == Some("same-origin") {
                return Ok(Page::Own);
            }
            judge_origin(origin, headers, door)
        }
        (None, _) => {
            let visits = text("sec-fetch-mode") == Some("navigate")
                && matches!(*request.method(), Method::GET | Method::HEAD);
            match site {
                None | Some("same-origin" | "none") => Ok(Page::Own),
                Some(_) if visits => Ok(Page::Own),
                Some(_) => Err(Refusal::OtherSite),
            }
        }
    }
}

fn judge_origin(text: &str, headers: &HeaderMap, door: &Door) -> Result<Page, Refusal> {
    let foreign = || Refusal::Foreign(text.to_owned());
    let origin = Origin::parse(text).ok_or_else(foreign)?;
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if host.is_some_and(|host| origin.is_at(host)) {
        return Ok(Page::Own);
    }
    if door.admits(&origin) { Ok(Page::Allowed) } else { Err(foreign()) }
}
