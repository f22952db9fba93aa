//! Addresses for servers that go and come back.
//!
//! A port that the system hands out lies in the range from which it also takes the local ports of outgoing connections.
//! While a server is away, any connection of any program can sit on such a port, and the server finds it in use when it
//! comes back. So these lie below that range.

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener},
    ops::Range,
};

/// From here on, and below the ports that `mongo-replica-set` takes for the members.
const RANGE: Range<u16> = 10_000..20_000;
/// The first port of outgoing connections, where the system does not say: Linux's default, which is the lowest of all.
const OUTGOING_FROM: u16 = 32_768;
/// Ports below are for the system's own services.
const UNPRIVILEGED_FROM: u16 = 1_024;

const ATTEMPTS_MAX: usize = 200;

/// A port on which nothing listens, and which no outgoing connection will be given.
pub fn lasting_port() -> io::Result<u16> {
    let range = range_below(outgoing_from());
    // At random: programs that choose at the same time would all find the same next one.
    (0..ATTEMPTS_MAX)
        .map(|_| rand::random_range(range.clone()))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::AddrInUse, format!("no free port was found in {range:?}")))
}

fn outgoing_from() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(OUTGOING_FROM)
}

fn range_below(outgoing_from: u16) -> Range<u16> {
    let below = RANGE.start..RANGE.end.min(outgoing_from);
    match below.is_empty() {
        false => below,
        true if outgoing_from > UNPRIVILEGED_FROM => UNPRIVILEGED_FROM..outgoing_from,
        // Nothing is safe on this machine; the usual ports are as good as any.
        true => RANGE,
    }
}
