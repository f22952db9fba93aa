//! Corriente: a realtime chat server in which MongoDB's change stream is the only thing that pushes.
//!
//! > **Requests only insert; one task watches; memory is one log; sessions read the log.**
//!
//! ```text
//! browser --POST /api/messages--> api/ --NewMessage--> mongo/inserter --insert--> MongoDB `messages`
//!    |  `--ws `send` frame--> sessions/ --NewMessage------^                            | change stream
//!    |                            ^                                                    v (also other programs'
//!    |                            | entries after my place                             |  inserts, edits, deletes)
//!    <-- WS, SSE, Socket.IO - sessions/ <--read--- feed/ <--append (sole writer)-- watcher <-- mongo/changes
//! ```
//!
//! # Vocabulary
//! - **message**: one document of the collection `messages` ([`message`]).
//! - **topic**: what a client can follow: a room, an inbox, or all ([`topic`]).
//! - **event**: one change to one message: what it was (its topics) and what it is now ([`event`]).
//! - **cursor**: a place in the change stream, valid on every server process and across restarts ([`cursor`]).
//! - **entry**: a cursor and its event, encoded at most once and shared by every reader.
//! - **log**: one bounded ring per process, in stream order, evicted oldest first ([`feed`]).
//! - **floor**: the cursor of the newest evicted entry, or of a gap. The log is complete after it.
//! - **watermark**: the place up to which the log may be read; moved by the watcher after each whole batch.
//! - **session**: one connected client. It owns a place in the log, not a queue ([`sessions`]).
//! - **watcher**: the one task per process that reads the change stream and appends to the log ([`watcher`]).
//! - **presence**: how many sessions follow a room, on all servers together ([`presence`]).
//! - **vitals**: how the server is, now and over the last quarter of an hour ([`vitals`]).
//!
//! # Invariants
//! 1. Only the watcher pushes: [`feed::FeedWriter`] has the sole `append`, is not `Clone`, and [`app::App::start`] moves it
//!    into the watcher.
//! 2. Handlers only insert. A sender sees its own message come back through the stream, matched by its id.
//! 3. Every writer is equal: no code knows who wrote. The data contract is the only rule.
//! 4. No queue per client: the log alone bounds memory.
//! 5. One order, one cursor for all topics.
//! 6. One event is one frame per session: `created`, `updated` or `deleted`, each encoded at most once.
//! 7. The server listens only after the change stream is open, and stops in reverse.
//! 8. A task that must not end, ending, ends the process.
//! 9. Never a silent gap: what can not be delivered exactly is announced with `reset`.
//!
//! # Reading order
//! [`routes`] (what is offered), [`app`] (how the parts are joined), [`watcher`], [`feed`], [`sessions`], then
//! [`mongo`]. The imports that are allowed between them are a test: `tests/architecture.rs`.

pub mod api;
pub mod app;
pub mod asyncapi;
pub mod base_path;
pub mod config;
pub mod cursor;
pub mod event;
pub mod feed;
pub mod listener;
pub mod message;
pub mod middleware;
pub mod mongo;
pub mod origin;
pub mod pages;
pub mod presence;
pub mod problem;
pub mod rates;
pub mod readiness;
pub mod replay;
pub mod routes;
pub mod sessions;
pub mod telemetry;
pub mod topic;
pub mod vitals;
pub mod watcher;
