//! Every way in which a server ends a connection, with its name, and whether to come back.

use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

/// Why the server closes a connection. The codes are those of RFC 6455 and its IANA registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Close {
    /// The server stops or restarts. Come back, with jitter.
    Restart,
    /// No byte of what was sent has moved for too long. Come back with the last cursor.
    Stuck,
    /// The client sent a frame that is no text.
    NotText,
    /// What it sent is not UTF-8.
    NotUtf8,
    /// It broke the protocol.
    Protocol,
    /// It sent a frame or a message over the bound.
    TooBig,
    /// Something in the server failed. Come back, later.
    Internal,
}

impl Close {
    pub(super) fn frame(self) -> CloseFrame {
        let (code, reason) = match self {
            Close::Restart => (CloseCode::Restart, "the server restarts; reconnect with your last cursor"),
            Close::Stuck => (CloseCode::Again, "you stopped reading; reconnect with your last cursor"),
            Close::NotText => (CloseCode::Unsupported, "frames must be text"),
            Close::NotUtf8 => (CloseCode::Invalid, "text must be UTF-8"),
            Close::Protocol => (CloseCode::Protocol, "this is not RFC 6455"),
            Close::TooBig => (CloseCode::Size, "a frame is at most 64 KiB"),
            Close::Internal => (CloseCode::Error, "the server failed; reconnect with your last cursor"),
        };
        CloseFrame { code, reason: reason.into() }
    }
}
