//! Whether a node really answers.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// Whether a broker answers the AMQP protocol header with `Connection.Start`: a port is open
/// before the node behind it takes connections.
pub(super) fn greets(port: u16) -> bool {
    let hello = || -> io::Result<bool> {
        let mut stream = connect(port)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        // A method frame on channel 0, its size, then class 10 method 10.
        let mut start = [0; 11];
        stream.read_exact(&mut start)?;
        Ok(start[..3] == [1, 0, 0] && start[7..] == [0, 10, 0, 10])
    };
    hello().unwrap_or(false)
}

/// A connection to a loopback port, within five seconds.
pub(super) fn connect(port: u16) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_secs(5))
}
