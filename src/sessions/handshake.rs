//! The handshake of RFC 6455.

use base64::prelude::{BASE64_STANDARD, Engine};
use poem::{
    Request, Response,
    http::{HeaderMap, HeaderName, StatusCode, header},
};
use sha1::{Digest, Sha1};

use crate::{listener::Upgrade, problem::Problem};

/// Accepts a handshake: the stream to come, which is there when the answer has gone out, and the answer.
///
/// # Errors
/// When the request is no handshake.
pub fn accept(request: &Request) -> Result<(Upgrade, Response), Problem> {
    let key = handshake_key(request.headers())?;
    let upgrade = request.data::<Upgrade>().cloned().ok_or_else(not_an_upgrade)?;
    let answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept_key(key))
        .finish();
    Ok((upgrade, answer))
}

/// The client's key, when the request is a handshake of RFC 6455.
fn handshake_key(headers: &HeaderMap) -> Result<&str, Problem> {
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

/// What the server answers to a key: it shows that it has understood the handshake, and is no secret.
fn accept_key(key: &str) -> String {
    const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    BASE64_STANDARD.encode(Sha1::digest([key, GUID].concat()))
}

fn not_an_upgrade() -> Problem {
    Problem::new(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket; connect with ws:// or wss://")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
