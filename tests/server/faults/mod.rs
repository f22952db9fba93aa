//! The promise under faults: `docs/` says what is promised, and each test here breaks something while clients are at
//! work and then lets the checker of `examples/nemesis` compare what they saw with what is stored.

#[path = "../../../examples/nemesis/checker.rs"]
#[allow(dead_code)] // The table of the example needs more of it.
mod checker;
#[path = "../../../examples/nemesis/reader.rs"]
mod reader;
#[path = "../../../examples/nemesis/stage.rs"]
mod stage;
#[path = "../../../examples/nemesis/traffic.rs"]
mod traffic;
#[path = "../../../examples/nemesis/writers.rs"]
mod writers;

mod collection;
mod group_commit;
mod inserts;
mod members;
mod oplog;
mod outages;
mod programs;
mod streams;
mod world;
