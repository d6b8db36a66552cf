//! Walks through the fields of a frame, as the client library will, and repairs the names in them.

/// How deep tables and arrays may be nested. The client library goes into each by a call of its own,
/// and a thousand of these overflow its stack, which ends the process (measured).
pub(super) const DEEPEST: usize = 32;

/// Why fields cannot be walked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// They end early or late, or are of a type that there is not.
    Malformed,
    /// They are nested deeper than the client library bears.
    Harmful,
}

/// A place in the payload of a frame, and what has been repaired before it.
pub(super) struct Fields<'a> {
    bytes: &'a mut [u8],
    at: usize,
    repaired: bool,
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            repaired: false,
        }
    }

    /// How far it has come.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Whether a name was repaired.
    pub(super) fn repaired(&self) -> bool {
        self.repaired
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), Unreadable> {
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(Unreadable::Malformed)
        }
    }

    /// A number of two bytes.
    pub(super) fn short(&mut self) -> Result<u16, Unreadable> {
        self.array().map(u16::from_be_bytes)
    }

    /// A number of four bytes.
    pub(super) fn long(&mut self) -> Result<u32, Unreadable> {
        self.array().map(u32::from_be_bytes)
    }

    /// Passes over fields of this many bytes.
    pub(super) fn skip(&mut self, count: usize) -> Result<(), Unreadable> {
        self.take(count).map(|_| ())
    }

    /// A short string: the client library has it that these are UTF-8.
    pub(super) fn name(&mut self) -> Result<(), Unreadable> {
        let [length] = self.array()?;
        let repaired = make_utf8(self.take(length.into())?);
        self.repaired |= repaired;
        Ok(())
    }

    /// That many short strings.
    pub(super) fn names(&mut self, count: usize) -> Result<(), Unreadable> {
        (0..count).try_for_each(|_| self.name())
    }

    /// A table, with its length.
    pub(super) fn table(&mut self) -> Result<(), Unreadable> {
        self.entries(true, 0)
    }

    /// A table, with its length; if it cannot be read it is passed over, and the answer is no.
    pub(super) fn table_or_skip(&mut self) -> Result<bool, Unreadable> {
        let start = self.at;
        let length = self.long()? as usize;
        self.skip(length)?;
        let end = std::mem::replace(&mut self.at, start);
        let read = self.table();
        self.at = end;
        Ok(read.is_ok())
    }

    /// The entries of a table, which have names, or of an array, with their length.
    fn entries(&mut self, named: bool, depth: usize) -> Result<(), Unreadable> {
        if depth == DEEPEST {
            return Err(Unreadable::Harmful);
        }
        let length = self.long()? as usize;
        let mut entries = Fields::new(self.take(length)?);
        while entries.at < length {
            if named {
                entries.name()?;
            }
            entries.value(depth)?;
        }
        let repaired = entries.repaired;
        self.repaired |= repaired;
        Ok(())
    }

    /// A value, with the letter of its type: those that RabbitMQ and the client library know.
    fn value(&mut self, depth: usize) -> Result<(), Unreadable> {
        let [kind] = self.array()?;
        match kind {
            b'V' => Ok(()),
            b't' | b'b' | b'B' => self.skip(1),
            b's' | b'U' | b'u' => self.skip(2),
            b'I' | b'i' | b'f' => self.skip(4),
            b'D' => self.skip(5),
            b'L' | b'l' | b'd' | b'T' => self.skip(8),
            b'S' | b'x' => {
                let length = self.long()? as usize;
                self.skip(length)
            }
            b'A' => self.entries(false, depth + 1),
            b'F' => self.entries(true, depth + 1),
            _ => Err(Unreadable::Malformed),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn take(&mut self, count: usize) -> Result<&mut [u8], Unreadable> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get_mut(self.at..end));
        let taken = taken.ok_or(Unreadable::Malformed)?;
        self.at += count;
        Ok(taken)
    }
}

/// Puts `?` in the place of every byte that is not part of UTF-8. Tells whether there was one.
fn make_utf8(text: &mut [u8]) -> bool {
    let mut repaired = false;
    let mut from = 0;
    while let Err(error) = str::from_utf8(&text[from..]) {
        let start = from + error.valid_up_to();
        let end = error.error_len().map_or(text.len(), |wrong| start + wrong);
        text[start..end].fill(b'?');
        repaired = true;
        from = end;
    }
    repaired
}
