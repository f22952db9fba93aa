//! The server as its users meet it: a real mongod, real sockets, one database per test.
#![allow(clippy::unwrap_used)] // In a test a panic is the report.

mod answers;
mod around;
mod asyncapi;
mod binary;
mod changes;
mod clients;
mod contract;
mod cursors;
mod events;
mod faults;
mod follow;
mod front_door;
mod harness;
mod http2;
mod input;
mod mongod;
mod openapi;
mod order;
mod origins;
mod paging;
mod presence;
mod programs;
mod proxy;
mod read_only;
mod recover;
mod relay;
mod replays;
mod rest;
mod retention;
mod rooms;
mod search;
mod settings;
mod socket_io;
mod transports;
mod writers;
