//! The server as its users meet it: a real mongod, real sockets, one database per test.

mod follow;
mod harness;
mod input;
mod openapi;
mod recover;
mod rest;
