//! The server as its users meet it: a real mongod, real sockets, one database per test.
#![allow(clippy::unwrap_used)] // In a test a panic is the report.

mod answers;
mod around;
mod asyncapi;
mod binary;
mod changes;
mod clients;
mod conformance;
mod contract;
mod cursors;
mod events;
mod faults;
mod follow;
mod front_door;
mod harness;
mod http2;
mod input;
mod noise;
mod openapi;
mod order;
mod origins;
mod paging;
mod presence;
mod programs;
mod rates;
mod recover;
mod relay;
mod replays;
mod rest;
mod rooms;
mod search;
mod siege;
mod socket_io;
mod transports;
mod writers;
