//! The promise under faults: `docs/` says what is promised, and each test here breaks something while clients are at
//! work and then lets the checker of `examples/nemesis` compare what they saw with what is stored.

#[path = "../../../examples/nemesis/checker.rs"]
#[allow(dead_code)] // The table of the example needs more of it.
mod checker;
#[path = "../../../examples/nemesis/growth.rs"]
#[allow(dead_code)] // Here for its own tests: those of an example are not run.
mod growth;
#[path = "../../../examples/nemesis/ports.rs"]
mod ports;
#[path = "../../../examples/nemesis/reader.rs"]
mod reader;
#[path = "../../../examples/nemesis/stage.rs"]
mod stage;
#[path = "../../../examples/nemesis/traffic.rs"]
mod traffic;
#[path = "../../../examples/nemesis/writers.rs"]
mod writers;

mod clients;
mod collection;
mod group_commit;
mod inserts;
mod members;
mod oplog;
mod outages;
mod poison;
pub mod program;
mod programs;
mod reopening;
mod streams;
mod stuck;
mod wipe;
mod world;

pub use world::World;
