//! Every way in which a server ends a connection, with its name, and whether to come back.

use bytes::Bytes;

use super::wire::{Outgoing, Violation};

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
    /// It was refused again and again, and went on. Come back later, and slower.
    Flood,
    /// Something in the server failed. Come back, later.
    Internal,
}

impl Close {
    /// All of them, for the catalogue.
    pub(super) const ALL: [Close; 8] = [
        Close::Restart,
        Close::Stuck,
        Close::Internal,
        Close::TooBig,
        Close::NotUtf8,
        Close::NotText,
        Close::Protocol,
        Close::Flood,
    ];

    /// The code, and the reason in words.
    pub(super) fn words(self) -> (u16, &'static str) {
        match self {
            Close::Restart => (1012, "the server restarts; reconnect with your last cursor"),
            Close::Stuck => (1013, "you stopped reading; reconnect with your last cursor"),
            Close::NotText => (1003, "frames must be text"),
            Close::NotUtf8 => (1007, "text must be UTF-8"),
            Close::Protocol => (1002, "this is not RFC 6455"),
            Close::TooBig => (1009, "a frame is at most 64 KiB"),
            Close::Flood => (1008, "you sent on although it was too much; reconnect later, and send slower"),
            Close::Internal => (1011, "the server failed; reconnect with your last cursor"),
        }
    }

    pub(super) fn frame(self) -> Bytes {
        let (code, reason) = self.words();
        Outgoing::Close(code, reason).encode()
    }
}

impl Violation {
    /// The close frame that answers it.
    pub fn close_frame(self) -> Bytes {
        let close = match self {
            Violation::Protocol => Close::Protocol,
            Violation::NotUtf8 => Close::NotUtf8,
            Violation::TooBig => Close::TooBig,
        };
        close.frame()
    }
}
