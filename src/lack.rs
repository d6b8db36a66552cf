//! What the bridge's own process or machine may run out of. A connection that fails for want of it
//! says nothing about the other side.
//!
//! Knows it by the error's number, never by its text.

use std::{
    fmt, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

/// The numbers that Linux gives these errors; the standard library has no names for them.
const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const EADDRNOTAVAIL: i32 = 99;
const ENOBUFS: i32 = 105;

/// As many descriptors as must be free for a failed look-up to be the name's own fault. It needs
/// one at a time; the others are for those that have become free since.
const LOOKUP_NEEDS: usize = 3;

/// What is lacking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lack {
    /// This process has as many files and sockets open as it may.
    Descriptors,
    /// All processes together have.
    SystemDescriptors,
    /// Every local port for this address is taken.
    Ports,
    /// The kernel has no memory for another socket.
    Memory,
}

/// An attempt that could not be made for want of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// What is lacking.
    pub lack: Lack,
    /// How it showed, in one line for a person.
    pub detail: String,
}

impl Lack {
    /// What is lacking, if that is what `error` says. [`Lack::Ports`] only may be meant: see
    /// [`Lack::holds_for`].
    pub fn of(error: &io::Error) -> Option<Self> {
        match error.raw_os_error()? {
            EMFILE => Some(Self::Descriptors),
            ENFILE => Some(Self::SystemDescriptors),
            EADDRNOTAVAIL => Some(Self::Ports),
            ENOBUFS | ENOMEM => Some(Self::Memory),
            _ => None,
        }
    }

    /// Whether it is this that kept a connection from being made to `address`.
    ///
    /// Without a free port the system says the same as without any local address that leads there
    /// (an IPv6 target on a machine that has none): but then a datagram socket, which needs a port
    /// of its own and no more, cannot be connected either.
    pub fn holds_for(self, address: SocketAddr) -> bool {
        self != Self::Ports || may_be_called(address)
    }

    /// The words for the log: that it is lacking, what to do about it, and how it showed.
    pub fn told(self, detail: impl fmt::Display) -> String {
        let remedy = self.remedy();
        format!("the bridge itself is out of {self}: {remedy}; {detail}")
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Descriptors => {
                "raise the limit: LimitNOFILE= of the systemd unit, ulimits.nofile of the container, ulimit -n, \
                 or `prlimit --nofile` of the running process"
            }
            Self::SystemDescriptors => "raise the machine's limit: sysctl fs.file-max",
            Self::Ports => "widen the range: sysctl net.ipv4.ip_local_port_range",
            Self::Memory => "give the machine memory, or its sockets more: sysctl net.ipv4.tcp_mem",
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Descriptors => "file descriptors (the limit of this process)",
            Self::SystemDescriptors => "file descriptors (the limit of the machine)",
            Self::Ports => "local ports",
            Self::Memory => "memory for sockets",
        })
    }
}

/// What a failed look-up of a name failed of.
///
/// The system's resolver that cannot open its files and sockets says that the name is not known,
/// `localhost` not excepted, and gives no number (measured with glibc 2.36). So it is found out
/// whether sockets can be opened, and if not, that is the error.
pub fn behind_lookup(error: io::Error) -> io::Error {
    if error.raw_os_error().is_some() {
        return error;
    }
    let opened: io::Result<Vec<_>> = (0..LOOKUP_NEEDS)
        .map(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))
        .collect();
    match opened {
        Err(cause) if Lack::of(&cause).is_some() => cause,
        Ok(_) | Err(_) => error,
    }
}

fn may_be_called(address: SocketAddr) -> bool {
    let socket = match address {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
    };
    match socket {
        Ok(socket) => socket.connect(address).is_ok(),
        Err(error) => Lack::of(&error).is_some_and(|lack| lack != Lack::Ports),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_bridge_lacks_is_told_from_what_the_other_side_refuses() {
        let told = |code| Lack::of(&io::Error::from_raw_os_error(code));
        assert_eq!(told(24), Some(Lack::Descriptors));
        assert_eq!(told(23), Some(Lack::SystemDescriptors));
        assert_eq!(told(99), Some(Lack::Ports));
        assert_eq!(told(105), Some(Lack::Memory));
        assert_eq!(told(12), Some(Lack::Memory));
        // Refused, timed out, no route, reset, no network.
        for code in [111, 110, 113, 104, 101] {
            assert_eq!(told(code), None, "{code}");
        }
        let text = io::Error::other("Too many open files (os error 24)");
        assert_eq!(Lack::of(&text), None, "by its number, not by its text");
    }

    #[test]
    fn an_unknown_name_stays_one_while_sockets_can_be_opened() {
        let unknown = behind_lookup(io::Error::other("Name or service not known"));
        assert_eq!(Lack::of(&unknown), None);
        assert_eq!(unknown.to_string(), "Name or service not known");
    }

    #[test]
    fn an_address_without_a_way_to_it_is_no_lack_of_ports() {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        assert!(Lack::Ports.holds_for(loopback));
        // No datagram may be sent to everybody without being allowed to.
        let nowhere = SocketAddr::from((Ipv4Addr::BROADCAST, 9));
        assert!(!Lack::Ports.holds_for(nowhere));
        assert!(Lack::Descriptors.holds_for(nowhere));
    }
}
