//! A publisher that writes AMQP's bytes itself, for what the client library would not let a test
//! say: names that are not UTF-8, and tables that make no sense.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
};

use lapin::uri::AMQPUri;

use super::eventually::SOON;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const FRAME_END: u8 = 0xce;
/// What the broker allows by default, and what is asked for here.
pub const FRAME_MAX: u32 = 131_072;

/// Ids of class and method.
type Method = (u16, u16);
const START: Method = (10, 10);
const TUNE: Method = (10, 30);
const OPEN_OK: Method = (10, 41);
const CHANNEL_OPEN_OK: Method = (20, 11);
const CONFIRM_SELECT_OK: Method = (85, 11);
const ACK: Method = (60, 80);

/// One connection with one channel, which confirms.
pub struct RawPublisher(TcpStream);

impl RawPublisher {
    pub fn connect(uri: &str) -> Self {
        let uri: AMQPUri = uri.parse().unwrap();
        let stream = TcpStream::connect((&*uri.authority.host, uri.authority.port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut publisher = Self(stream);
        publisher.0.write_all(b"AMQP\0\0\x09\x01").unwrap();
        publisher.expect(START);
        let user = uri.authority.userinfo;
        let login = format!("\0{}\0{}", user.username, user.password);
        // No client properties, the mechanism, the answer to it, the locale.
        let start_ok = [
            &[0; 4][..],
            &short(b"PLAIN"),
            &long(login.as_bytes()),
            &short(b"en_US"),
        ];
        publisher.call(0, (10, 11), &start_ok.concat());
        publisher.expect(TUNE);
        let no_heartbeat = [0; 2];
        let tune_ok = [
            &2047_u16.to_be_bytes()[..],
            &FRAME_MAX.to_be_bytes(),
            &no_heartbeat,
        ];
        publisher.call(0, (10, 31), &tune_ok.concat());
        let open = [&short(uri.vhost.as_bytes())[..], &[0, 0]];
        publisher.call(0, (10, 40), &open.concat());
        publisher.expect(OPEN_OK);
        publisher.call(1, (20, 10), &short(b""));
        publisher.expect(CHANNEL_OPEN_OK);
        publisher.call(1, (85, 10), &[0]);
        publisher.expect(CONFIRM_SELECT_OK);
        publisher
    }

    /// Publishes, mandatory, and waits for the confirm. `properties` begins with the flags. What the
    /// broker says instead of a confirm is the error.
    pub fn publish(
        &mut self,
        exchange: &[u8],
        key: &[u8],
        properties: &[u8],
        body: &[u8],
    ) -> Result<(), String> {
        let mandatory = 1;
        let publish = [&[0, 0][..], &short(exchange), &short(key), &[mandatory]].concat();
        self.call(1, (60, 40), &publish);
        let size = u64::try_from(body.len()).unwrap();
        let header = [&[0, 60, 0, 0][..], &size.to_be_bytes(), properties].concat();
        self.write(HEADER, 1, &header);
        for part in body.chunks(FRAME_MAX as usize - 8) {
            self.write(BODY, 1, part);
        }
        match self.read().map_err(|error| error.to_string())? {
            (ACK, _) => Ok(()),
            (method, arguments) => Err(format!(
                "{method:?}: {}",
                String::from_utf8_lossy(&arguments)
            )),
        }
    }

    fn call(&mut self, channel: u16, method: Method, arguments: &[u8]) {
        let payload = [
            &method.0.to_be_bytes()[..],
            &method.1.to_be_bytes(),
            arguments,
        ]
        .concat();
        self.write(METHOD, channel, &payload);
    }

    fn write(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let size = u32::try_from(payload.len()).unwrap();
        let frame = [
            &[kind][..],
            &channel.to_be_bytes(),
            &size.to_be_bytes(),
            payload,
            &[FRAME_END],
        ];
        // The broker may have hung up; then the next reading says so.
        self.0.write_all(&frame.concat()).ok();
    }

    fn expect(&mut self, expected: Method) {
        let (method, arguments) = self.read().unwrap();
        let said = String::from_utf8_lossy(&arguments);
        assert_eq!(method, expected, "{said}");
    }

    /// The next method and its arguments.
    fn read(&mut self) -> io::Result<(Method, Vec<u8>)> {
        loop {
            let mut start = [0; 7];
            self.0.read_exact(&mut start)?;
            let size = u32::from_be_bytes(start[3..].try_into().unwrap());
            let mut payload = vec![0; size as usize + 1];
            self.0.read_exact(&mut payload)?;
            assert_eq!(payload.pop(), Some(FRAME_END));
            if start[0] == METHOD {
                let number = |at| u16::from_be_bytes([payload[at], payload[at + 1]]);
                return Ok(((number(0), number(2)), payload[4..].to_vec()));
            }
        }
    }
}

/// A short string: at most 255 bytes.
pub fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()][..], text].concat()
}

/// A long string, or the content of a table or an array, with its length.
pub fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], bytes].concat()
}

/// An entry of a table: its name, the letter of its type, and its value.
pub fn entry(name: &[u8], kind: u8, value: &[u8]) -> Vec<u8> {
    [&short(name)[..], &[kind], value].concat()
}

/// The properties of a persistent message with these headers.
pub fn headers(entries: &[u8]) -> Vec<u8> {
    [&[0x30, 0][..], &long(entries), &[2]].concat()
}

/// Properties of which one is set, told by its bit in the flags.
pub fn property(bit: u8, value: &[u8]) -> Vec<u8> {
    [&(1_u16 << bit).to_be_bytes()[..], value].concat()
}
