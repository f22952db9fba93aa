//! Stage 4b, one per client: a place in the log, and a transport that writes what comes after it.
//!
//! `subscription` is the same for every transport: what is followed, what was read, when to say `ready`, `position`
//! and `reset`. A transport turns its outputs into bytes and its client's frames into calls.

mod changes;
mod close;
mod event_stream;
mod frame;
mod handshake;
mod live_api;
mod pieces;
mod schema;
mod socket;
mod socket_io;
mod subscription;
mod websocket;
mod wire;

pub use frame::{ClientFrame, FrameError};
pub use handshake::accept;
pub use live_api::LiveApi;
pub use socket::{ReadError, Socket, WriteError};
pub use socket_io::{EngineClocks, EngineIo, serve_socket_io, socket_io_builder};
pub use subscription::{Interest, Output, Sources, Subscription, Told, TopicsError};
pub use websocket::{Sessions, serve_websocket};
pub use wire::{Decoder, Incoming, MESSAGE_BYTES_MAX, Outgoing, Violation};
