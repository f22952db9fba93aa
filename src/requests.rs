//! What is noted of every request, whatever it asks for: an id by which it is found again in the log, how it was
//! answered, and how long that took.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use poem::{
    Endpoint, IntoResponse, Middleware, PathPattern, Request, Response, Result,
    http::{HeaderMap, HeaderName, HeaderValue, Method},
};
use tracing::{Instrument, debug, info_span};

use crate::telemetry::Metrics;

/// The header in which a proxy or a client names its request, and in which every answer has that name, or ours.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id of somebody else's that is taken over, in characters.
const ID_CHARS_MAX: usize = 64;

/// Notes every request.
pub struct Noted(Arc<Metrics>);

impl Noted {
    /// Counts in `metrics`.
    pub fn new(metrics: Metrics) -> Self {
        // The first look at the metrics finds the one for itself.
        metrics.count_request("/metrics".into(), "GET", 200, Duration::ZERO);
        Self(Arc::new(metrics))
    }
}

impl<E: Endpoint> Middleware<E> for Noted {
    type Output = Noting<E>;

    fn transform(&self, endpoint: E) -> Noting<E> {
        Noting { endpoint, metrics: self.0.clone() }
    }
}

/// See [`Noted`].
pub struct Noting<E> {
    endpoint: E,
    metrics: Arc<Metrics>,
}

impl<E: Endpoint> Endpoint for Noting<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        let began = Instant::now();
        let id = RequestId::of(request.headers());
        let method = word_of(request.method());
        // A path is ASCII without spaces and controls, so it can not forge a line. The query stays out: it may hold what
        // people search for.
        let span = info_span!("request", %id, method, path = request.uri().path());
        let answering = self.endpoint.call(request).instrument(span.clone());
        let mut response = match answering.await {
            Ok(response) => response.into_response(),
            Err(error) => error.into_response(),
        };
        let duration = began.elapsed();
        let status = response.status().as_u16();
        // The framework numbers the parameters of documented operations.
        let route = response.data::<PathPattern>().map_or("none".into(), |pattern| pattern.0.replace(":param0", ":id"));
        self.metrics.count_request(route, method, status, duration);
        debug!(parent: &span, status, millis = duration.as_secs_f64() * 1_000.0, "answered");
        response.headers_mut().insert(REQUEST_ID, id.0);
        Ok(response)
    }
}

/// What a request is called.
struct RequestId(HeaderValue);

impl RequestId {
    /// The name that came with it, if it has one that can stand in a log, else a new one.
    fn of(headers: &HeaderMap) -> Self {
        let is_fit = |id: &&HeaderValue| {
            let is_fit = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
            (1..=ID_CHARS_MAX).contains(&id.len()) && id.as_bytes().iter().all(is_fit)
        };
        match headers.get(REQUEST_ID).filter(is_fit) {
            Some(id) => Self(id.clone()),
            None => {
                let id = format!("{:016x}", rand::random::<u64>());
                // Hexadecimal digits can stand in a header.
                Self(HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("none")))
            }
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

/// The method as a label: whatever clients make up is `other`.
fn word_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_forge_a_line_is_replaced() {
        let of = |id: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(id).unwrap());
            RequestId::of(&headers).to_string()
        };
        assert_eq!(of(b"7f3a.B-1_x"), "7f3a.B-1_x");
        for id in [&b""[..], b"a b", b"a\tb", "ñ".as_bytes(), &[b'a'; ID_CHARS_MAX + 1], b"\"},{\"x"] {
            let made = of(id);
            assert!(made.len() == 16 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made}");
        }
        assert_ne!(RequestId::of(&HeaderMap::new()).to_string(), RequestId::of(&HeaderMap::new()).to_string());
    }
}
