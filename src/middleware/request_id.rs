//! The id by which a request is found again in the log, on whichever side of a proxy.

use std::fmt;

use poem::http::{HeaderMap, HeaderName, HeaderValue};

/// The header in which a proxy or a client names its request, and in which every answer has that name, or ours.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id of somebody else's that is taken over, in characters.
const ID_CHARS_MAX: usize = 64;

/// What a request is called.
pub(super) struct RequestId(HeaderValue);

impl RequestId {
    /// The name that came with it, if it has one that can stand in a log, else a new one.
    pub(super) fn of(headers: &HeaderMap) -> Self {
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

    /// Names the request in its answer.
    pub(super) fn tell(self, headers: &mut HeaderMap) {
        headers.insert(REQUEST_ID, self.0);
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
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
