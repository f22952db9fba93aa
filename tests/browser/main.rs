//! People talk in a real Chromium, and programs that know nothing of it join in.
#![allow(clippy::unwrap_used)] // In a test a panic is the report.

mod access;
mod axe;
mod chromium;
mod docs;
mod embed;
mod faults;
mod find;
#[allow(dead_code)] // Shared with the server's tests, which use the rest.
#[path = "../server/harness.rs"]
mod harness;
mod load;
mod places;
#[allow(dead_code)] // Shared likewise.
#[path = "../server/programs.rs"]
mod programs;
mod settings;
mod status;
mod talk;
mod transports;
