//! Which loopback port a member gets.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

/// Below the range from which systems take the local ports of outgoing connections (32768 and up on
/// Linux, 49152 and up elsewhere). A killed member must find its port free when it comes back, and
/// an outgoing connection of any program could have taken it otherwise.
const RANGE: Range<u16> = 20_000..32_000;

const ATTEMPTS_MAX: usize = 200;

/// The preferred port when nothing listens there, else one at random.
///
/// Random rather than "the next free one", because test programs that run at the same time would
/// all find the same next one. Nothing reserves the port: a mongod that finds it taken after all
/// must ask again.
pub(crate) fn choose(preferred: Option<u16>, taken: &[u16]) -> io::Result<u16> {
    let usable = |port: u16| !taken.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    if let Some(port) = preferred.filter(|port| usable(*port)) {
        return Ok(port);
    }
    (0..ATTEMPTS_MAX)
        .map(|_| RANGE.start + (random() % u64::from(RANGE.end - RANGE.start)) as u16)
        .find(|port| usable(*port))
        .ok_or_else(|| io::Error::new(io::ErrorKind::AddrInUse, "no free port was found between 20000 and 32000"))
}

/// 64 random bits: the standard library seeds every `RandomState` anew, which is enough to spread
/// ports and names and saves a dependency.
pub(crate) fn random() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u8(0);
    hasher.finish()
}
