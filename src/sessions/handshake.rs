//! The handshake of RFC 6455.

use poem::http::{HeaderMap, HeaderName, StatusCode, header};

use crate::problem::Problem;

/// The client's key, when the request is a handshake of RFC 6455.
pub(super) fn handshake_key(headers: &HeaderMap) -> Result<&str, Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // A header may stand in several lines.
    let has_word = |name: HeaderName, word: &str| {
        let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        lines.flat_map(|line| line.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    if !has_word(header::UPGRADE, "websocket") || !has_word(header::CONNECTION, "upgrade") {
        return Err(not_an_upgrade());
    }
    if text(header::SEC_WEBSOCKET_VERSION) != "13" {
        return Err(Problem::new(StatusCode::UPGRADE_REQUIRED, "Sec-WebSocket-Version must be 13"));
    }
    match text(header::SEC_WEBSOCKET_KEY) {
        // Sixteen bytes in base64.
        key if key.len() == 24 => Ok(key),
        _ => Err(Problem::new(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in base64")),
    }
}

pub(super) fn not_an_upgrade() -> Problem {
    Problem::new(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket; connect with ws:// or wss://")
}
