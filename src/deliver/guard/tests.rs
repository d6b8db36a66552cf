use std::{
    net::Ipv6Addr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use futures_util::future::join_all;
use url::{Host, Url};

use super::*;

/// Addresses as a URL may write them, and the class that each is forbidden as; `-` may be called.
const NOTATIONS: &str = "
    127.0.0.1                                  loopback
    127.255.255.254                            loopback
    127.1                                      loopback
    127.0.1                                    loopback
    0x7f.0.0.1                                 loopback
    0x7f000001                                 loopback
    0X7F.1                                     loopback
    0177.0.0.1                                 loopback
    0177.1                                     loopback
    017700000001                               loopback
    2130706433                                 loopback
    127.0.0.1.                                 loopback
    %31%32%37.0.0.1                            loopback
    １２７.０.０.１                            loopback
    127。0。0。1                               loopback
    0                                          reserved
    0.0.0.0                                    reserved
    0.255.255.255                              reserved
    1.0.0.0                                    -
    10.0.0.1                                   private
    012.0.0.1                                  private
    167772161                                  private
    0xa.0x0.0x0.0x1                            private
    9.255.255.255                              -
    11.0.0.0                                   -
    172.15.255.255                             -
    172.16.0.0                                 private
    172.31.255.255                             private
    172.32.0.0                                 -
    192.168.0.1                                private
    192.168.257                                private
    3232235521                                 private
    192.169.0.0                                -
    100.63.255.255                             -
    100.64.0.1                                 shared address space
    100.127.255.255                            shared address space
    100.128.0.0                                -
    100.100.100.200                            cloud metadata
    169.254.169.254                            cloud metadata
    2852039166                                 cloud metadata
    0xa9fea9fe                                 cloud metadata
    0251.0376.0251.0376                        cloud metadata
    169.254.43518                              cloud metadata
    169.254.170.2                              cloud metadata
    169.254.0.1                                link-local
    168.63.129.16                              cloud metadata
    168.63.129.17                              -
    192.0.0.192                                cloud metadata
    192.0.0.8                                  reserved
    192.0.1.0                                  -
    192.0.2.1                                  reserved
    192.31.196.1                               reserved
    192.52.193.1                               reserved
    192.88.99.1                                reserved
    192.175.48.1                               reserved
    198.17.255.255                             -
    198.18.0.1                                 reserved
    198.19.255.255                             reserved
    198.51.100.7                               reserved
    203.0.113.7                                reserved
    223.255.255.255                            -
    224.0.0.1                                  multicast
    239.255.255.250                            multicast
    240.0.0.1                                  reserved
    255.255.255.255                            broadcast
    4294967295                                 broadcast
    8.8.8.8                                    -
    0x08080808                                 -
    [::]                                       reserved
    [0:0:0:0:0:0:0:0]                          reserved
    [::1]                                      loopback
    [0000:0000:0000:0000:0000:0000:0000:0001]  loopback
    [0::0.0.0.1]                               loopback
    [::2]                                      reserved
    [::7f00:1]                                 loopback
    [::127.0.0.1]                              loopback
    [::8.8.8.8]                                -
    [::ffff:127.0.0.1]                         loopback
    [::ffff:7f00:1]                            loopback
    [::FFFF:7F00:0001]                         loopback
    [0:0:0:0:0:ffff:10.0.0.1]                  private
    [::ffff:a9fe:a9fe]                         cloud metadata
    [::ffff:0.0.0.0]                           reserved
    [::ffff:8.8.8.8]                           -
    [::ffff:0:127.0.0.1]                       loopback
    [::ffff:0:8.8.8.8]                         -
    [64:ff9b::127.0.0.1]                       loopback
    [64:ff9b::a9fe:a9fe]                       cloud metadata
    [64:ff9b::c0a8:1]                          private
    [64:ff9b::8.8.8.8]                         -
    [64:ff9b:1::8.8.8.8]                       reserved
    [64:ff9b:0:0:1::1]                         reserved
    [2002:7f00:1::]                            loopback
    [2002:a9fe:a9fe::1]                        cloud metadata
    [2002:c0a8:0101:1::1]                      private
    [2002:808:808::1]                          -
    [2001:0:7f00:1::f7f7:f7f7]                 loopback
    [2001:0:808:808:0:0:80ff:fffe]             loopback
    [2001::808:808:8000:63bf:3f57:fefe]        private
    [2001:0:808:808:0:0:f7f7:f7f7]             -
    [2001:2::1]                                reserved
    [2001:10::1]                               reserved
    [2001:20::1]                               reserved
    [2001:1ff:ffff::1]                         reserved
    [2001:200::1]                              -
    [2001:db8::1]                              reserved
    [2001:4860:4860::8888]                     -
    [2606:4700:4700:0:0:0:0:1111]              -
    [2620:4f:8000::1]                          reserved
    [3fff:fff::1]                              reserved
    [3fff:1000::1]                             -
    [4000::1]                                  reserved
    [5f00::1]                                  reserved
    [100::1]                                   reserved
    [100:0:0:1::1]                             reserved
    [fc00::1]                                  unique-local
    [fdff:ffff::1]                             unique-local
    [fd00:ec2::254]                            cloud metadata
    [fd00:0ec2:0:0:0:0:0:0254]                 cloud metadata
    [fd20:ce::254]                             cloud metadata
    [fe80::1]                                  link-local
    [febf::1]                                  link-local
    [fe80::a9fe:a9fe]                          link-local
    [fec0::1]                                  private
    [ff02::1]                                  multicast
    [ff0e::1]                                  multicast
";

fn rows() -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
    NOTATIONS
        .lines()
        .filter_map(|line| line.trim().split_once(' '))
        .map(|(host, class)| (host, Some(class.trim()).filter(|class| *class != "-")))
}

fn literal(host: &str) -> IpAddr {
    let url = Url::parse(&format!("http://{host}/")).expect(host);
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.into(),
        Some(Host::Ipv6(ip)) => ip.into(),
        other => panic!("{host} is no address but {other:?}"),
    }
}

fn nets(allow: &[&str]) -> Vec<IpNet> {
    allow.iter().map(|net| net.parse().unwrap()).collect()
}

fn fixed(
    allow: &[&str],
    answers: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
) -> AddressGuard {
    AddressGuard::with_lookup(nets(allow), Lookup::Fixed(Arc::new(answers)))
}

fn ips(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|ip| ip.parse().unwrap()).collect()
}

#[test]
fn every_notation_of_a_forbidden_address_is_forbidden() {
    let guard = AddressGuard::new(Vec::new());
    assert!(rows().count() > 100);
    for (host, expected) in rows() {
        let class = guard
            .check(literal(host))
            .err()
            .map(|refusal| refusal.class);
        assert_eq!(class, expected, "{host}");
    }
}

#[test]
fn every_forbidden_ipv4_address_is_forbidden_inside_ipv6() {
    let guard = AddressGuard::new(Vec::new());
    for (host, class) in rows().filter(|(host, _)| !host.starts_with('[')) {
        let IpAddr::V4(inner) = literal(host) else {
            panic!("{host}")
        };
        let bits = u128::from(u32::from(inner));
        let forms = [
            bits | 0xffff << 32,
            bits | 0xffff << 48,
            bits | 0x0064_ff9b << 96,
            bits << 80 | 0x2002 << 112,
            bits << 64 | 0x2001 << 112 | 0xf7f7_f7f7,
            bits ^ 0xffff_ffff | 0x2001 << 112 | 0x0808_0808 << 64,
        ];
        for form in forms.map(Ipv6Addr::from_bits) {
            let found = guard.check(form.into()).err().map(|refusal| refusal.class);
            assert_eq!(found, class, "{host} as {form}");
        }
    }
}

#[test]
fn an_allowed_network_exempts_its_addresses_and_their_mapped_form() {
    let guard = AddressGuard::new(nets(&["127.0.0.0/8", "10.1.0.0/16", "fd12::/16"]));
    for ip in [
        "127.0.0.1",
        "10.1.2.3",
        "::ffff:10.1.2.3",
        "fd12::1",
        "1.1.1.1",
    ] {
        assert_eq!(guard.check(ip.parse().unwrap()), Ok(()), "{ip}");
    }
    for ip in [
        "10.2.0.1",
        "::ffff:10.2.0.1",
        "::1",
        "fd13::1",
        "64:ff9b::10.1.2.3",
        "2002:a01:203::",
    ] {
        assert!(guard.check(ip.parse().unwrap()).is_err(), "{ip}");
    }
}

#[test]
fn a_refusal_names_the_address_and_its_class() {
    let guard = AddressGuard::new(Vec::new());
    let refusal = guard.check(literal("0x7f.1")).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "127.0.0.1 is a forbidden address (loopback)"
    );
}

#[tokio::test]
async fn a_name_that_resolves_to_forbidden_addresses_only_is_forbidden() {
    let guard = fixed(&[], |_| Ok(ips(&["10.0.0.1", "::1"])));
    let refusal = guard.resolve("inner.example", 443).await.unwrap_err();
    assert!(matches!(
        refusal,
        ResolveError::Forbidden(Forbidden {
            class: "private",
            ..
        })
    ));
}

#[tokio::test]
async fn forbidden_addresses_among_others_are_left_out() {
    let guard = fixed(&[], |_| {
        Ok(ips(&["127.0.0.1", "8.8.8.8", "::ffff:10.0.0.1"]))
    });
    let addresses = guard.resolve("mixed.example", 443).await.unwrap();
    assert_eq!(addresses, ["8.8.8.8:443".parse().unwrap()]);
}

#[tokio::test]
async fn the_systems_notations_of_the_loopback_are_forbidden_as_names_too() {
    let guard = AddressGuard::new(Vec::new());
    for host in [
        "localhost",
        "127.0.0.1",
        "127.1",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "2130706433",
        "::1",
        "[::1]",
        "[::ffff:127.0.0.1]",
    ] {
        let refusal = guard.resolve(host, 80).await.unwrap_err();
        assert!(
            matches!(
                refusal,
                ResolveError::Forbidden(Forbidden {
                    class: "loopback",
                    ..
                })
            ),
            "{host}: {refusal:?}"
        );
    }
}

#[tokio::test]
async fn a_name_without_an_address_does_not_resolve() {
    let unknown = fixed(&[], |_| Err(io::Error::other("no such name")));
    let error = unknown.resolve("nobody.example", 80).await.unwrap_err();
    assert_eq!(error.to_string(), "the name does not resolve: no such name");
    let empty = fixed(&[], |_| Ok(Vec::new()));
    let error = empty.resolve("nobody.example", 80).await.unwrap_err();
    assert!(matches!(error, ResolveError::Dns(_)));
}

#[tokio::test]
async fn a_name_that_turns_to_the_loopback_is_forbidden_from_then_on() {
    let asked = AtomicUsize::new(0);
    let guard = fixed(&[], move |_| {
        Ok(match asked.fetch_add(1, Ordering::Relaxed) {
            0 => ips(&["8.8.8.8"]),
            _ => ips(&["127.0.0.1"]),
        })
    });
    assert!(guard.resolve("turning.example", 80).await.is_ok());
    let refusal = guard.resolve("turning.example", 80).await.unwrap_err();
    assert!(matches!(refusal, ResolveError::Forbidden(_)));
}

#[tokio::test]
async fn a_hanging_name_holds_one_thread_and_no_other_name() {
    let asked = Arc::new(AtomicUsize::new(0));
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let guard = fixed(&[], {
        let asked = Arc::clone(&asked);
        move |host| {
            if host == "hanging.example" {
                asked.fetch_add(1, Ordering::Relaxed);
                held.lock().unwrap().recv().unwrap();
            }
            Ok(ips(&["8.8.8.8"]))
        }
    });
    // The first starts the look-up, which does not end before it is released.
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let mut resolving = Box::pin(guard.resolve("hanging.example", 80));
        assert!(futures_util::poll!(&mut resolving).is_pending());
        waiting.push(resolving);
    }
    assert!(guard.resolve("other.example", 80).await.is_ok());
    // Half of them give up, the one that started it among them.
    waiting.drain(..50);
    release.send(()).unwrap();
    for resolved in join_all(waiting).await {
        assert!(resolved.is_ok());
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);

    release.send(()).unwrap();
    assert!(guard.resolve("hanging.example", 80).await.is_ok());
    assert_eq!(asked.load(Ordering::Relaxed), 2, "nothing is kept");
}
