//! Makes what the broker sends readable for the client library, which ends the whole connection, or
//! the whole process, over a message that it cannot read; and the broker delivers that message again.
//!
//! RabbitMQ takes names of any bytes, tables nested as deep as they fit, and adds headers of its own
//! to a message that filled a frame already. So every frame that names can be in is looked through
//! before the client library sees it: what is not UTF-8 in a name becomes `?`, byte for byte, and
//! headers that cannot be kept are left out. Bodies pass untouched, and so does every frame that
//! is as it should be.

use std::{io, ops::Range};

mod fields;
mod stream;

use fields::{Fields, Unreadable};
pub(super) use stream::{SiftedRuntime, sift, sifted_runtime};

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// Type, channel and size of a frame come before its payload,
const START: usize = 7;
/// and one byte after it.
const AROUND: usize = START + 1;
/// Where in a content header the flags of the properties are, behind class, weight and size.
const FLAGS: Range<usize> = 12..14;
/// The flag of the headers, the only property that can be large.
const HEADERS: u16 = 1 << 13;

/// Bytes read at once.
const CHUNK: usize = 32 * 1024;
/// The largest frame that is held to be looked through. More than one of headers can have.
const MOST_HELD: usize = 16 * 1024 * 1024;
/// The least that AMQP lets two peers agree on.
const LEAST_FRAME_MAX: u32 = 4096;

/// What had to be done to a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repair {
    /// Names in it were not UTF-8.
    Names,
    /// Its headers were left out.
    Headers,
    /// All its properties were left out.
    Properties,
}

/// Takes the bytes that come in, and gives those that the client library is to see.
#[derive(Debug)]
struct Sieve {
    /// `start..sifted` is to be given out, `sifted..end` is yet to be looked through.
    buffer: Vec<u8>,
    start: usize,
    sifted: usize,
    end: usize,
    /// What is left of a frame that passes as it is.
    passing: usize,
    /// How large the frame is that is waited for.
    awaited: usize,
    /// What this side asks for; 0 for no limit.
    own_max: u32,
    /// The largest frame that was agreed on.
    frame_max: usize,
    repairs: Vec<Repair>,
}

impl Sieve {
    /// `own_max` is the largest frame that this side asks for, 0 for what the broker likes.
    fn new(own_max: u32) -> Self {
        Self {
            buffer: vec![0; CHUNK],
            start: 0,
            sifted: 0,
            end: 0,
            passing: 0,
            awaited: 0,
            own_max,
            frame_max: usize::MAX,
            repairs: Vec::new(),
        }
    }

    /// Moves what is ready into `out`, and tells how much that was.
    fn take(&mut self, out: &mut [u8]) -> usize {
        let ready = &self.buffer[self.start..self.sifted];
        let count = ready.len().min(out.len());
        out[..count].copy_from_slice(&ready[..count]);
        self.start += count;
        count
    }

    /// Where to put what comes next: never empty. [`Self::fill`] tells how much it was.
    fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.sifted -= self.start;
            self.end -= self.start;
            self.start = 0;
        }
        let size = CHUNK.max(self.sifted + self.awaited).max(self.end + 1);
        if self.buffer.len() != size {
            self.buffer.resize(size, 0);
            self.buffer.shrink_to(size);
        }
        &mut self.buffer[self.end..]
    }

    /// Looks through `count` more bytes.
    fn fill(&mut self, count: usize) -> io::Result<()> {
        self.end += count;
        self.awaited = 0;
        while self.sifted < self.end {
            let unseen = &mut self.buffer[self.sifted..self.end];
            if self.passing > 0 {
                let passed = self.passing.min(unseen.len());
                self.passing -= passed;
                self.sifted += passed;
                continue;
            }
            let &mut [kind, _, _, a, b, c, d, ..] = unseen else {
                break;
            };
            let size = (u32::from_be_bytes([a, b, c, d]) as usize).saturating_add(AROUND);
            match kind {
                METHOD | HEADER if size <= MOST_HELD => {
                    if unseen.len() < size {
                        self.awaited = size;
                        break;
                    }
                    let kept = self.frame(kind, size)?;
                    if kept < size {
                        let rest = self.sifted + size..self.end;
                        self.buffer.copy_within(rest, self.sifted + kept);
                        self.end -= size - kept;
                    }
                    self.sifted += kept;
                }
                BODY | HEARTBEAT => self.passing = size,
                // The client library is to say what is wrong with it.
                _ => self.passing = usize::MAX,
            }
        }
        Ok(())
    }

    /// Gives out what there is: no more will come.
    fn finish(&mut self) {
        self.sifted = self.end;
    }

    /// Looks through the frame of `size` bytes that is next, and tells how many of them stay.
    fn frame(&mut self, kind: u8, size: usize) -> io::Result<usize> {
        let frame = &mut self.buffer[self.sifted..self.sifted + size];
        if kind == HEADER {
            let (kept, repair) = content_header(frame, self.frame_max);
            self.repairs.extend(repair);
            return Ok(kept);
        }
        let mut fields = Fields::new(&mut frame[START..size - 1]);
        match method(&mut fields) {
            Ok(Some(peers)) => self.frame_max = agreed(self.own_max, peers),
            Err(Unreadable::Harmful) => {
                let why = "the broker sends what no broker sends, and what would end this process";
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            // If there is something wrong with it, the client library is to say what.
            Ok(None) | Err(Unreadable::Malformed) => {}
        }
        self.repairs
            .extend(fields.repaired().then_some(Repair::Names));
        Ok(size)
    }
}

/// Repairs the names in a method that carries such as others chose. Gives the largest frame that the
/// broker proposes, if it is that method.
fn method(fields: &mut Fields<'_>) -> Result<Option<u32>, Unreadable> {
    match (fields.short()?, fields.short()?) {
        // connection.start: versions, server properties.
        (10, 10) => {
            fields.skip(2)?;
            fields.table()?;
        }
        // connection.tune: channels.
        (10, 30) => {
            fields.skip(2)?;
            return Ok(Some(fields.long()?));
        }
        // connection.close, channel.close: code, text. The broker cuts a long text anywhere.
        (10, 50) | (20, 40) => {
            fields.skip(2)?;
            fields.name()?;
        }
        // basic.return: code, text, exchange, routing key.
        (60, 50) => {
            fields.skip(2)?;
            fields.names(3)?;
        }
        // basic.deliver: consumer, delivery tag, redelivered, exchange, routing key.
        (60, 60) => {
            fields.name()?;
            fields.skip(9)?;
            fields.names(2)?;
        }
        // basic.get-ok: delivery tag, redelivered, exchange, routing key.
        (60, 71) => {
            fields.skip(9)?;
            fields.names(2)?;
        }
        // Only clients send these, and each has a table that the client library would read.
        (10, 11) | (40, 10 | 30 | 40) | (50, 10 | 20 | 50) | (60, 20) => {
            return Err(Unreadable::Harmful);
        }
        _ => {}
    }
    Ok(None)
}

/// The largest frame that both sides take, as the client library reckons it; 0 is no limit.
fn agreed(own: u32, peers: u32) -> usize {
    let limit = match (own, peers) {
        (0, 0) => u32::MAX,
        (own, peers) if own == 0 || peers != 0 && peers < own => peers.max(LEAST_FRAME_MAX),
        (own, _) => own,
    };
    limit as usize
}

/// Makes a content header one that can be read and has at most `frame_max` bytes. Tells how many
/// bytes of the frame are left, and what had to be done.
fn content_header(frame: &mut [u8], frame_max: usize) -> (usize, Option<Repair>) {
    let size = frame.len();
    let mut fields = Fields::new(&mut frame[START..size - 1]);
    let read = properties(&mut fields);
    let names = fields.repaired().then_some(Repair::Names);
    match read {
        Ok(Properties { readable: true, .. }) if size <= frame_max => (size, names),
        Ok(Properties { headers, flags, .. }) => {
            let headers = headers.start + START..headers.end + START;
            write_flags(frame, flags & !HEADERS);
            frame.copy_within(headers.end.., headers.start);
            let kept = size - headers.len();
            write_size(frame, kept);
            (kept, Some(Repair::Headers))
        }
        // RabbitMQ refuses such properties.
        Err(_) if size >= AROUND + FLAGS.end => {
            write_flags(frame, 0);
            let kept = AROUND + FLAGS.end;
            frame[kept - 1] = frame[size - 1];
            write_size(frame, kept);
            (kept, Some(Repair::Properties))
        }
        Err(_) => (size, None),
    }
}

/// The properties of a message, where they are in its content header.
struct Properties {
    flags: u16,
    /// The table of headers, its length included; empty if there is none.
    headers: Range<usize>,
    /// Whether that table can be read.
    readable: bool,
}

/// Walks through a content header, and repairs the names in it.
fn properties(fields: &mut Fields<'_>) -> Result<Properties, Unreadable> {
    fields.skip(FLAGS.start)?;
    let flags = fields.short()?;
    let mut found = Properties {
        flags,
        headers: 0..0,
        readable: true,
    };
    for bit in (0..16).rev().filter(|bit| flags & 1 << bit != 0) {
        match bit {
            // Headers.
            13 => {
                let start = fields.at();
                found.readable = fields.table_or_skip()?;
                found.headers = start..fields.at();
            }
            // Delivery mode, priority.
            12 | 11 => fields.skip(1)?,
            // Timestamp.
            6 => fields.skip(8)?,
            // Not in use.
            1 | 0 => {}
            _ => fields.name()?,
        }
    }
    fields.end()?;
    Ok(found)
}

fn write_flags(frame: &mut [u8], flags: u16) {
    frame[START..][FLAGS].copy_from_slice(&flags.to_be_bytes());
}

/// Writes the size of the payload of a frame that is to have `kept` bytes.
fn write_size(frame: &mut [u8], kept: usize) {
    let size = u32::try_from(kept - AROUND).unwrap_or(u32::MAX);
    frame[3..START].copy_from_slice(&size.to_be_bytes());
}

#[cfg(test)]
mod tests;
