//! Who a request comes from when it comes through a proxy.
//!
//! Anybody can write `X-Forwarded-For`. It is read only in requests of a proxy that the operator has named, from the
//! right, where the nearest proxy has written, up to the first address that is no proxy of ours: what stands left of
//! that may be invented.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use poem::http::HeaderMap;

const X_FORWARDED_FOR: &str = "X-Forwarded-For";
const FORWARDED: &str = "Forwarded";

/// Proxies that are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustedProxy {
    /// None: what an operator writes who wants to be explicit.
    Nobody,
    /// Those on this machine and in private networks.
    Private,
    /// Those in one network: an address, and how many of its first bits count.
    Network(IpAddr, u32),
}

impl FromStr for TrustedProxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no proxy: write an address (192.0.2.1), a network (10.0.0.0/8), true or false");
        match text.trim() {
            "" | "false" | "0" | "no" => return Ok(Self::Nobody),
            "true" | "1" | "yes" | "private" => return Ok(Self::Private),
            _ => {}
        }
        let (address, bits) = text.trim().split_once('/').map_or((text.trim(), None), |(a, bits)| (a, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(bits_max), |bits| bits.parse().map_err(|_| wrong()))?;
        if bits <= bits_max { Ok(Self::Network(address, bits)) } else { Err(wrong()) }
    }
}

impl TrustedProxy {
    fn is(self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::Nobody, _) => false,
            (Self::Private, IpAddr::V4(address)) => {
                let [a, b, ..] = address.octets();
                // The last one is that of providers who share addresses (RFC 6598), and of some container networks.
                address.is_loopback() || address.is_private() || address.is_link_local() || (a == 100 && b & 0xC0 == 64)
            }
            (Self::Private, IpAddr::V6(address)) => {
                address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
            }
            (Self::Network(network, bits), address) => match (network.to_canonical(), address) {
                (IpAddr::V4(network), IpAddr::V4(address)) => {
                    u32::MAX.checked_shr(bits).is_none_or(|rest| network.to_bits() | rest == address.to_bits() | rest)
                        && (bits < 32 || network == address)
                }
                (IpAddr::V6(network), IpAddr::V6(address)) => {
                    u128::MAX.checked_shr(bits).is_none_or(|rest| network.to_bits() | rest == address.to_bits() | rest)
                        && (bits < 128 || network == address)
                }
                _ => false,
            },
        }
    }
}

/// Whether an address is that of a proxy that is believed.
pub(super) fn is_trusted(trusted: &[TrustedProxy], address: IpAddr) -> bool {
    trusted.iter().any(|proxy| proxy.is(address.to_canonical()))
}

/// Whether a request says that it came through a proxy.
pub(super) fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(FORWARDED)
}

/// The address of the client behind the trusted proxy `peer`.
///
/// A proxy writes one of the two headers and passes the other one on as its client has made it up. Where both are there
/// and do not agree, neither is believed, and the client counts as the proxy itself.
pub(super) fn client_of(trusted: &[TrustedProxy], peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let elements = |name| {
        let lines = headers.get_all(name).iter();
        let texts: Vec<&str> = lines.flat_map(|line| line.to_str().unwrap_or("?").split(',')).collect();
        texts
    };
    let (plain, standard) = (elements(X_FORWARDED_FOR), elements(FORWARDED));
    let plain = (!plain.is_empty()).then(|| nearest(trusted, peer, plain.iter().map(|text| address_of(text))));
    let standard =
        (!standard.is_empty()).then(|| nearest(trusted, peer, standard.iter().map(|text| address_of(for_of(text)))));
    match (plain, standard) {
        (Some(one), Some(other)) if one != other => peer,
        (Some(client), _) | (None, Some(client)) => client,
        (None, None) => peer,
    }
}

/// The rightmost address that is no proxy of ours. What can not be read ends the search: whoever wrote it is the last
/// that is known.
fn nearest(trusted: &[TrustedProxy], peer: IpAddr, hops: impl DoubleEndedIterator<Item = Option<IpAddr>>) -> IpAddr {
    let mut client = peer;
    for hop in hops.rev() {
        let Some(hop) = hop else {
            break;
        };
        client = hop;
        if !is_trusted(trusted, hop) {
            break;
        }
    }
    client
}

/// An address with or without a port, of IPv6 also in brackets.
fn address_of(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// The node of `for=` in an element of `Forwarded` (RFC 7239).
fn for_of(element: &str) -> &str {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let node = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for")).map(|(_, node)| node.trim()).next();
    node.unwrap_or_default().trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(text: &str) -> Vec<TrustedProxy> {
        text.split(',').map(|proxy| proxy.parse().unwrap()).collect()
    }

    fn client(proxies: &str, peer: &str, headers: &[(&'static str, &str)]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        client_of(&trusted(proxies), peer.parse().unwrap(), &map).to_string()
    }

    #[test]
    fn networks_hold_what_their_bits_say() {
        for (proxy, inside, outside) in [
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.0.0.0/31", "10.0.0.1", "10.0.0.2"),
            ("2001:db8::/32", "2001:db8:9::1", "2001:db9::1"),
            ("true", "172.16.3.4", "8.8.8.8"),
            ("true", "fd00::1", "2001:db8::1"),
            ("private", "127.0.0.1", "172.32.0.1"),
        ] {
            let proxies = trusted(proxy);
            assert!(is_trusted(&proxies, inside.parse().unwrap()), "{inside} in {proxy}");
            assert!(!is_trusted(&proxies, outside.parse().unwrap()), "{outside} in {proxy}");
        }
        assert!(is_trusted(&trusted("0.0.0.0/0"), "203.0.113.9".parse().unwrap()));
        assert!(is_trusted(&trusted("10.0.0.0/8"), "::ffff:10.1.2.3".parse().unwrap()));
        assert!(!is_trusted(&trusted("false"), "127.0.0.1".parse().unwrap()));
        for text in ["10.0.0.0/33", "10.0.0/8", "proxy.example", "::/129", "10.0.0.0/x"] {
            assert!(text.parse::<TrustedProxy>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_no_proxy() {
        let x = |value| [("X-Forwarded-For", value)];
        assert_eq!(client("true", "127.0.0.1", &x("203.0.113.9")), "203.0.113.9");
        assert_eq!(client("true", "127.0.0.1", &x("1.2.3.4, 203.0.113.9, 10.0.0.7")), "203.0.113.9");
        assert_eq!(client("true", "127.0.0.1", &x("203.0.113.9:443")), "203.0.113.9");
        assert_eq!(client("true", "127.0.0.1", &x("[2001:db8::1]:443")), "2001:db8::1");
        assert_eq!(client("true", "127.0.0.1", &x("1.2.3.4, unknown, 10.0.0.7")), "10.0.0.7");
        assert_eq!(client("true", "127.0.0.1", &[]), "127.0.0.1");
        assert_eq!(client("192.0.2.1", "192.0.2.1", &x("10.0.0.1, 127.0.0.1")), "127.0.0.1");
        let lines = [("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-For", "203.0.113.9")];
        assert_eq!(client("true", "127.0.0.1", &lines), "203.0.113.9");
        let standard = [("Forwarded", "for=1.2.3.4, For=\"[2001:db8::1]:4711\";proto=https;by=10.0.0.1")];
        assert_eq!(client("true", "127.0.0.1", &standard), "2001:db8::1");
    }

    #[test]
    fn of_two_headers_that_do_not_agree_neither_is_believed() {
        let both = |x, forwarded| [("X-Forwarded-For", x), ("Forwarded", forwarded)];
        assert_eq!(client("true", "127.0.0.1", &both("203.0.113.9", "for=1.2.3.4")), "127.0.0.1");
        assert_eq!(client("true", "127.0.0.1", &both("203.0.113.9", "for=203.0.113.9")), "203.0.113.9");
    }
}
