//! Finds or fetches `mongod`, and runs replica sets of 1 to n members on this machine.
//!
//! Change streams exist only on replica sets, so a program that needs them cannot be tried out
//! against a bare `mongod`. This crate gives such a program a real one: for one command that just
//! works, and for tests that kill, stop and step down members.
//!
//! ```no_run
//! # async fn example() -> Result<(), mongo_replica_set::Error> {
//! use mongo_replica_set::{Options, ReplicaSet};
//!
//! let set = ReplicaSet::start(Options::default(), |line| eprintln!("{line}")).await?;
//! println!("mongodb: {}", set.uri());
//! set.stop().await
//! # }
//! ```
//!
//! Three promises hold whatever happens:
//!
//! - No `mongod` outlives the process that started it, not even after `kill -9` ([`ReplicaSet`]
//!   says how).
//! - Nothing listens on anything but 127.0.0.1, and nothing is installed: a fetched `mongod` is one
//!   file in the user's cache.
//! - Every wait has a deadline, and every failure is one sentence that says what to do.
//!
//! Reading order: `set.rs` (the public face), `configuration.rs` (how mongods become one
//! set), `member.rs` (one mongod and its arguments), `process.rs` (why it dies with us), `log.rs` (why
//! it ended), `data_dir.rs` (what stays on disk), `fetch.rs` and `wheel.rs` (where mongod comes from),
//! `wire.rs` (one command over one socket), `ports.rs`, `error.rs`.

mod configuration;
mod data_dir;
mod error;
mod fetch;
mod log;
mod member;
mod ports;
mod process;
mod set;
mod wheel;
mod wire;

pub use data_dir::check_free;
pub use error::Error;
pub use fetch::find_or_fetch;
pub use set::{Options, ReplicaSet};
