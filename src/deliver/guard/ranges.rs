//! The address ranges that nobody's webhook endpoint can honestly be in: the special-purpose
//! registries of IANA, and the metadata services of the clouds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

const LOOPBACK: &str = "loopback";
const PRIVATE: &str = "private";
const LINK_LOCAL: &str = "link-local";
const UNIQUE_LOCAL: &str = "unique-local";
const SHARED: &str = "shared address space";
const MULTICAST: &str = "multicast";
const METADATA: &str = "cloud metadata";
const RESERVED: &str = "reserved";

/// The first range that holds an address names its class.
const V4: [(Ipv4Net, &str); 25] = [
    // Amazon (and most others), Amazon's containers, Alibaba, Azure, Oracle.
    (v4([169, 254, 169, 254], 32), METADATA),
    (v4([169, 254, 170, 2], 32), METADATA),
    (v4([169, 254, 170, 23], 32), METADATA),
    (v4([100, 100, 100, 200], 32), METADATA),
    (v4([168, 63, 129, 16], 32), METADATA),
    (v4([192, 0, 0, 192], 32), METADATA),
    (v4([127, 0, 0, 0], 8), LOOPBACK),
    (v4([10, 0, 0, 0], 8), PRIVATE),
    (v4([172, 16, 0, 0], 12), PRIVATE),
    (v4([192, 168, 0, 0], 16), PRIVATE),
    (v4([169, 254, 0, 0], 16), LINK_LOCAL),
    (v4([100, 64, 0, 0], 10), SHARED),
    (v4([224, 0, 0, 0], 4), MULTICAST),
    // "This" network: Linux connects 0.0.0.0 to the loopback.
    (v4([0, 0, 0, 0], 8), RESERVED),
    // Protocol assignments.
    (v4([192, 0, 0, 0], 24), RESERVED),
    // Documentation.
    (v4([192, 0, 2, 0], 24), RESERVED),
    (v4([198, 51, 100, 0], 24), RESERVED),
    (v4([203, 0, 113, 0], 24), RESERVED),
    // AS112 sinks, AMT and 6to4 relays.
    (v4([192, 31, 196, 0], 24), RESERVED),
    (v4([192, 175, 48, 0], 24), RESERVED),
    (v4([192, 52, 193, 0], 24), RESERVED),
    (v4([192, 88, 99, 0], 24), RESERVED),
    // Benchmarks.
    (v4([198, 18, 0, 0], 15), RESERVED),
    // Future use, and broadcast.
    (v4([255, 255, 255, 255], 32), "broadcast"),
    (v4([240, 0, 0, 0], 4), RESERVED),
];

const V6: [(Ipv6Net, &str); 16] = [
    // Amazon, Amazon's containers, Google, Scaleway, Oracle.
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128), METADATA),
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23], 128), METADATA),
    (v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128), METADATA),
    (v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128), METADATA),
    (
        v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128),
        METADATA,
    ),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), LINK_LOCAL),
    // Site-local, given up in favour of unique-local.
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), PRIVATE),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), UNIQUE_LOCAL),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), MULTICAST),
    // NAT64 with a prefix of the network's own choice: where in it the IPv4 address stands
    // cannot be told.
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), RESERVED),
    // Discard-only, and the dummy prefix beside it.
    (v6([0x100, 0, 0, 0, 0, 0, 0, 0], 32), RESERVED),
    // Documentation.
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), RESERVED),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), RESERVED),
    // Protocol assignments: benchmarks, ORCHID and others. Teredo, inside it, is read as IPv4.
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), RESERVED),
    // AS112 sink.
    (v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48), RESERVED),
    // Segment routing.
    (v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16), RESERVED),
];

/// All of IPv6 that is given out for use on the Internet.
const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// The class that forbids an address, or `None` for a public one. An IPv4 address written inside
/// IPv6 is judged by the inner address.
pub(super) fn class(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => class_v4(ip),
        IpAddr::V6(ip) => class_v6(ip),
    }
}

fn class_v4(ip: Ipv4Addr) -> Option<&'static str> {
    V4.iter()
        .find(|(net, _)| net.contains(&ip))
        .map(|(_, class)| *class)
}

fn class_v6(ip: Ipv6Addr) -> Option<&'static str> {
    // These two look like compatible forms of 0.0.0.0 and 0.0.0.1.
    if ip.is_unspecified() {
        return Some(RESERVED);
    }
    if ip.is_loopback() {
        return Some(LOOPBACK);
    }
    if let Some(inner) = inner_v4(ip) {
        return inner.into_iter().find_map(class_v4);
    }
    V6.iter()
        .find(|(net, _)| net.contains(&ip))
        .map(|(_, class)| *class)
        .or((!GLOBAL_UNICAST.contains(&ip)).then_some(RESERVED))
}

/// The IPv4 addresses that traffic to an IPv6 address ends at or passes through, if it is a form
/// that holds any; where it holds one, that one twice.
fn inner_v4(ip: Ipv6Addr) -> Option<[Ipv4Addr; 2]> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match ip.segments() {
        // Compatible and translated (SIIT), mapped, NAT64.
        [0, 0, 0, 0, 0 | 0xffff, 0, g, h]
        | [0, 0, 0, 0, 0, 0xffff, g, h]
        | [0x64, 0xff9b, 0, 0, 0, 0, g, h] => Some([v4(g, h); 2]),
        // 6to4.
        [0x2002, b, c, ..] => Some([v4(b, c); 2]),
        // Teredo: the server, and the client with every bit turned over.
        [0x2001, 0, c, d, _, _, g, h] => Some([v4(c, d), v4(!g, !h)]),
        _ => None,
    }
}

const fn v4(octets: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::from_octets(octets), prefix)
}

const fn v6(segments: [u16; 8], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::from_segments(segments), prefix)
}
