//! Which web pages may use this server.
//!
//! Nobody signs in here, but a server is often reachable from the browser of somebody who visits other sites, on a
//! machine or in a network where those sites are not. Without this, any page could write in that person's chat and read
//! along: browsers let a page of any site open WebSockets and send forms. Programs that are no browsers send no `Origin`
//! and are not concerned.

use std::{str::FromStr, sync::Arc};

use poem::{
    Request, Response,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
};

use crate::problem::Problem;

/// How long a browser may remember what it was allowed, in seconds.
const ALLOWED_SECS: &str = "600";
/// What pages of other origins may send, when they are allowed at all.
const METHODS: &str = "GET, HEAD, POST";
const HEADERS: &str = "Content-Type, Idempotency-Key, Last-Event-ID, X-Request-Id";
/// What they may read of an answer beside its body.
const EXPOSED: &str = "Location, Link, Retry-After, X-Request-Id";

/// Where streams are that need no upgrade.
const STREAMS: [&str; 3] = ["/api/events", "/api/changes", "/socket.io"];

/// An origin that is allowed, or all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigin {
    /// Pages of every site.
    Any,
    /// Pages of one: scheme, host, and port if it is not the scheme's.
    One(String),
}

impl FromStr for AllowedOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let wrong = || {
            format!("{text:?} is not an origin: write `https://chat.example.org`, with a port if there is one, or *")
        };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let has_scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        match uri.authority() {
            Some(authority)
                if has_scheme && uri.path() == "/" && !text.ends_with('/') && !authority.as_str().contains('@') =>
            {
                Ok(Self::One(text.to_ascii_lowercase()))
            }
            _ => Err(wrong()),
        }
    }
}

/// Which origins are allowed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Origins(Arc<[AllowedOrigin]>);

impl Origins {
    /// Pages of this server may do everything, those of `allowed` origins what the API offers.
    pub fn new(allowed: &[AllowedOrigin]) -> Self {
        Self(allowed.into())
    }

    /// Finds out from where a request for `path`, below the base path, comes.
    ///
    /// # Errors
    /// When it is of a page of another origin that is not allowed, and would change something.
    pub fn judge(&self, request: &Request, path: &str) -> Result<Asking, Problem> {
        match from(request.headers(), request.uri(), &self.0) {
            From::Elsewhere if changes_something(request, path) => Err(forbidden(request.headers())),
            // A page from elsewhere may ask, as for a picture, but its browser does not show it the answer.
            From::Here | From::Elsewhere => Ok(Asking(None)),
            From::Allowed(origin) => Ok(Asking(Some(origin))),
        }
    }
}

/// Who asks: a page of another origin that is allowed, or anybody else who may.
pub struct Asking(Option<HeaderValue>);

impl Asking {
    /// The answer to a browser that asks whether its page may send a request.
    pub fn preflight(&self, method: &Method) -> Option<Response> {
        if self.0.is_none() || method != Method::OPTIONS {
            return None;
        }
        let allowed = Response::builder().status(StatusCode::NO_CONTENT);
        let allowed = allowed.header(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        let allowed = allowed.header(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        Some(allowed.header(header::ACCESS_CONTROL_MAX_AGE, ALLOWED_SECS).finish())
    }

    /// Lets the browser show its page the answer that has these headers.
    pub fn tell(self, headers: &mut HeaderMap) {
        let Some(origin) = self.0 else {
            return;
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
}

/// From where a request comes.
#[derive(Debug, PartialEq, Eq)]
enum From {
    /// A program, or a page of this server.
    Here,
    /// A page of another origin that is allowed.
    Allowed(HeaderValue),
    /// A page of another origin.
    Elsewhere,
}

/// A request that writes, opens a stream, which holds a place here as long as its page wants to, or asks whether it may.
fn changes_something(request: &Request, path: &str) -> bool {
    !matches!(*request.method(), Method::GET | Method::HEAD)
        || request.headers().contains_key(header::UPGRADE)
        || STREAMS.iter().any(|stream| path.starts_with(stream))
}

fn from(headers: &HeaderMap, uri: &Uri, allowed: &[AllowedOrigin]) -> From {
    let Some(origin) = headers.get(header::ORIGIN) else {
        // Browsers send no origin with some requests, but those of today say this.
        let is_cross_site = headers.get("Sec-Fetch-Site").is_some_and(|site| site == "cross-site");
        return if is_cross_site { From::Elsewhere } else { From::Here };
    };
    let text = origin.to_str().unwrap_or_default().to_ascii_lowercase();
    // Whether http or https the server can not know behind a proxy. HTTP/2 has the host in the URI.
    let host =
        headers.get(header::HOST).and_then(|host| host.to_str().ok()).or(uri.authority().map(|host| host.as_str()));
    let is_here =
        text.split_once("://").is_some_and(|(_, of_origin)| host.is_some_and(|host| is_same_host(of_origin, host)));
    let is_allowed = |allowed: &AllowedOrigin| match allowed {
        AllowedOrigin::Any => true,
        AllowedOrigin::One(one) => *one == text,
    };
    if is_here {
        From::Here
    } else if allowed.iter().any(is_allowed) {
        From::Allowed(origin.clone())
    } else {
        From::Elsewhere
    }
}

/// An origin leaves out the port of its scheme, and some clients do not in `Host`.
fn is_same_host(of_origin: &str, host: &str) -> bool {
    let without_port = |text: &str| text.trim_end_matches(":80").trim_end_matches(":443").to_ascii_lowercase();
    without_port(of_origin) == without_port(host)
}

fn forbidden(headers: &HeaderMap) -> Problem {
    let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()).unwrap_or("another site");
    let shown: String = origin.chars().take(200).collect();
    let detail =
        format!("pages of {shown} may not use this server; its operator can allow them with --allow-origin {shown}");
    Problem::new(StatusCode::FORBIDDEN, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(origin: Option<&str>, host: &str, allowed: &[&str]) -> From {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        let allowed: Vec<AllowedOrigin> = allowed.iter().map(|text| text.parse().unwrap()).collect();
        from(&headers, &Uri::from_static("/ws"), &allowed)
    }

    #[test]
    fn a_page_of_this_server_and_a_program_are_at_home() {
        assert_eq!(of(None, "chat.example:3000", &[]), From::Here);
        assert_eq!(of(Some("http://chat.example:3000"), "chat.example:3000", &[]), From::Here);
        assert_eq!(of(Some("https://Chat.example"), "chat.example", &[]), From::Here, "TLS ends at a proxy");
        assert_eq!(of(Some("https://chat.example"), "chat.example:443", &[]), From::Here);
    }

    #[test]
    fn others_are_elsewhere_unless_they_are_allowed() {
        for origin in ["http://evil.example", "http://chat.example:3001", "null", "file://", "http://chat.example.evil"]
        {
            assert_eq!(of(Some(origin), "chat.example:3000", &["https://app.example"]), From::Elsewhere, "{origin}");
        }
        assert!(matches!(of(Some("https://app.example"), "chat.example", &["https://APP.example"]), From::Allowed(_)));
        assert!(matches!(of(Some("null"), "chat.example", &["*"]), From::Allowed(_)));
    }

    #[test]
    fn what_is_no_origin_is_no_setting() {
        for text in [
            "",
            "app.example",
            "https://app.example/",
            "https://app.example/chat",
            "ftp://x",
            "https://",
            "https://u@x",
        ] {
            assert!(text.parse::<AllowedOrigin>().is_err(), "{text}");
        }
    }
}
