//! Reads JSON text value by value, without a tree of it: what the encoder walks over.
//!
//! The text is this program's own (stored objects, answers), so it is well-formed; what is not is told, and nothing
//! panics.

use std::borrow::Cow;

use memchr::memchr2;

/// The text is not the JSON that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text is no JSON at byte {0}")]
pub struct NotJson(pub usize);

/// A place in a JSON text.
pub struct JsonReader<'a> {
    text: &'a str,
    at: usize,
}

/// A text with its quotes.
struct Quoted<'a> {
    raw: &'a str,
    is_escaped: bool,
}

impl<'a> JsonReader<'a> {
    /// At the beginning of `text`, which ends for this reader where it is no UTF-8.
    pub fn new(text: &'a [u8]) -> Self {
        // Once for all: for each text in it, it took an eighth of the time of an encoding.
        let text = std::str::from_utf8(text).unwrap_or_else(|error| {
            let valid = text.get(..error.valid_up_to()).unwrap_or_default();
            std::str::from_utf8(valid).unwrap_or_default()
        });
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// What was read since `begin`.
    fn since(&self, begin: usize) -> Result<&'a str, NotJson> {
        self.text.get(begin..self.at).ok_or(NotJson(begin))
    }

    /// The first byte of the next value, which stays unread.
    pub fn peek(&mut self) -> Result<u8, NotJson> {
        while let Some(byte) = self.text.as_bytes().get(self.at) {
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                byte => return Ok(*byte),
            }
        }
        Err(NotJson(self.at))
    }

    /// Takes `byte` if it comes next.
    pub fn take(&mut self, byte: u8) -> Result<bool, NotJson> {
        let found = self.peek()? == byte;
        self.at += usize::from(found);
        Ok(found)
    }

    /// Takes `byte`, which must come next.
    pub fn expect(&mut self, byte: u8) -> Result<(), NotJson> {
        if self.take(byte)? { Ok(()) } else { Err(NotJson(self.at)) }
    }

    /// Calls `item` at each item of a list.
    pub fn list<E: From<NotJson>>(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), E>) -> Result<(), E> {
        self.expect(b'[')?;
        if self.take(b']')? {
            return Ok(());
        }
        loop {
            item(self)?;
            if !self.take(b',')? {
                return Ok(self.expect(b']')?);
            }
        }
    }

    /// Calls `entry` at each value of an object, with its name.
    pub fn object<E: From<NotJson>>(
        &mut self,
        mut entry: impl FnMut(&str, &mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect(b'{')?;
        if self.take(b'}')? {
            return Ok(());
        }
        loop {
            let name = self.string()?;
            self.expect(b':')?;
            entry(&name, self)?;
            if !self.take(b',')? {
                return Ok(self.expect(b'}')?);
            }
        }
    }

    /// Takes a text.
    pub fn string(&mut self) -> Result<Cow<'a, str>, NotJson> {
        let begin = self.at;
        let Quoted { raw, is_escaped } = self.quoted()?;
        match is_escaped {
            true => serde_json::from_str(raw).map(Cow::Owned).map_err(|_| NotJson(begin)),
            false => raw.get(1..raw.len() - 1).map(Cow::Borrowed).ok_or(NotJson(begin)),
        }
    }

    /// Takes a number, `true`, `false` or `null`, as it is written.
    pub fn word(&mut self) -> Result<&'a str, NotJson> {
        self.peek()?;
        let begin = self.at;
        let is_of_word = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'+' | b'E');
        self.at += self.rest().iter().take_while(|byte| is_of_word(byte)).count();
        self.since(begin).ok().filter(|word| !word.is_empty()).ok_or(NotJson(begin))
    }

    /// Takes a value of any type, as it is written.
    pub fn raw(&mut self) -> Result<&'a [u8], NotJson> {
        self.peek()?;
        let begin = self.at;
        let mut open = 0usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.quoted()?;
                }
                b'{' | b'[' => {
                    self.at += 1;
                    open += 1;
                }
                b'}' | b']' => {
                    self.at += 1;
                    open = open.checked_sub(1).ok_or(NotJson(self.at))?;
                }
                b',' | b':' if open > 0 => self.at += 1,
                _ => drop(self.word()?),
            }
            if open == 0 {
                return Ok(self.since(begin)?.as_bytes());
            }
        }
    }

    /// Takes a text with its quotes and escapes.
    fn quoted(&mut self) -> Result<Quoted<'a>, NotJson> {
        self.peek()?;
        let begin = self.at;
        self.expect(b'"')?;
        let mut is_escaped = false;
        loop {
            let rest = self.rest();
            let stop = memchr2(b'"', b'\\', rest).ok_or(NotJson(self.text.len()))?;
            self.at += stop + 1;
            if rest[stop] == b'"' {
                return Ok(Quoted { raw: self.since(begin)?, is_escaped });
            }
            // Whatever is escaped is no end.
            is_escaped = true;
            if self.at >= self.text.len() {
                return Err(NotJson(self.at));
            }
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_taken_as_they_are_written() {
        let text = br#"{"a\"b": [1, -2.5e3, null], "c": {"d": ["x", {}]}, "e": "\u00e9"}"#;
        let mut found = Vec::new();
        let read = JsonReader::new(text).object(|name, value| {
            found.push((name.to_owned(), String::from_utf8(value.raw()?.to_vec()).unwrap()));
            Ok::<_, NotJson>(())
        });
        assert_eq!(read, Ok(()));
        let expected = [("a\"b", "[1, -2.5e3, null]"), ("c", r#"{"d": ["x", {}]}"#), ("e", r#""\u00e9""#)];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(JsonReader::new(br#""\u00e9""#).string().unwrap(), "é");
        assert_eq!(JsonReader::new("\"é\"".as_bytes()).string().unwrap(), "é");
        let mut cut = JsonReader::new(b"[1, \"a\xff\"]");
        assert_eq!(cut.list(|item| item.raw().map(drop)), Err(NotJson(6)));
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..64), quoted in any::<bool>()) {
            let text = if quoted { [b"\"".as_slice(), &bytes].concat() } else { bytes };
            let _ = JsonReader::new(&text).raw();
            let _ = JsonReader::new(&text).string();
            let _ = JsonReader::new(&text).object(|_, value| value.raw().map(drop));
            let _ = JsonReader::new(&text).list(|value| value.raw().map(drop));
        }
    }
}
