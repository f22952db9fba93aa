//! People talk in a real Chromium, and programs that know nothing of it join in.
#![allow(clippy::unwrap_used)] // In a test a panic is the report.

mod access;
mod axe;
mod chromium;
mod faults;
mod find;
#[allow(dead_code)] // Shared with the server's tests, which use the rest.
#[path = "../server/harness.rs"]
mod harness;
mod places;
mod talk;
