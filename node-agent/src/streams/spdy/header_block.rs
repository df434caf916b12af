//! Header blocks: names and values of a stream. All blocks of one direction of a connection are one zlib stream, which
//! begins with a dictionary that both sides know (section 2.6.10.1).

use std::sync::LazyLock;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Names, in lower case, and their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

/// Why a header block cannot be read. The connection ends: what follows cannot be read either.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HeaderError {
    /// It is no continuation of the zlib stream.
    #[error("a header block is not compressed as it should be")]
    Compression,
    /// Kubernetes' clients send some hundred bytes.
    #[error("a header block has more than {LARGEST} bytes")]
    TooLarge,
    /// Kubernetes' clients send three. Empty ones cost little on the wire, and much more here.
    #[error("a header block has more than {MOST} headers")]
    TooMany,
    /// A length points behind its end, or text is no UTF-8.
    #[error("a header block is malformed")]
    Malformed,
}

/// Of a block, when it is decompressed.
const LARGEST: usize = 4 * 1024;
/// Headers of a block.
const MOST: u32 = 16;

impl Headers {
    /// The first value of a header, whose name is given in lower case; empty where there is none.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// Forgets all headers but these.
    pub fn retain(&mut self, names: &[&str]) {
        self.0.retain(|(name, _)| names.contains(&name.as_str()));
    }

    /// The count of headers, then each name and value behind its length.
    fn to_block(&self) -> Vec<u8> {
        let mut block = Vec::new();
        let mut put = |length: usize, text: &str| {
            block.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
            block.extend_from_slice(text.as_bytes());
        };
        put(self.0.len(), "");
        for (name, value) in &self.0 {
            put(name.len(), name);
            put(value.len(), value);
        }
        block
    }

    fn of_block(mut block: &[u8]) -> Result<Self, HeaderError> {
        let count = u32_at(&mut block).ok_or(HeaderError::Malformed)?;
        if count > MOST {
            return Err(HeaderError::TooMany);
        }
        let headers = (0..count).map(|_| header_at(&mut block)).collect::<Option<_>>();
        headers.map(Self).ok_or(HeaderError::Malformed)
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Headers {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(headers: T) -> Self {
        Self(headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

fn header_at(block: &mut &[u8]) -> Option<(String, String)> {
    let name = text_at(block)?.to_ascii_lowercase();
    // Several values of one name stand behind each other, with a NUL between them: the first counts here.
    let value = text_at(block)?.split('\0').next().unwrap_or_default().to_owned();
    Some((name, value))
}

fn u32_at(block: &mut &[u8]) -> Option<u32> {
    let (number, rest) = block.split_first_chunk::<4>()?;
    *block = rest;
    Some(u32::from_be_bytes(*number))
}

fn text_at<'a>(block: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::try_from(u32_at(block)?).ok()?;
    let (text, rest) = block.split_at_checked(length)?;
    *block = rest;
    std::str::from_utf8(text).ok()
}

/// Reads the header blocks of one direction.
pub struct HeaderDecoder(Decompress);

impl Default for HeaderDecoder {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl HeaderDecoder {
    /// Reads the next block.
    pub fn decode(&mut self, mut block: &[u8]) -> Result<Headers, HeaderError> {
        let mut plain = Vec::with_capacity(1024);
        loop {
            let before = (self.0.total_in(), plain.len());
            let progress = self.0.decompress_vec(block, &mut plain, FlushDecompress::Sync);
            let taken = self.0.total_in().saturating_sub(before.0);
            block = usize::try_from(taken).ok().and_then(|taken| block.get(taken..)).unwrap_or_default();
            match progress {
                Ok(Status::StreamEnd) => return Err(HeaderError::Compression),
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| HeaderError::Compression)?;
                    continue;
                }
                Err(_) => return Err(HeaderError::Compression),
            }
            if plain.len() >= LARGEST {
                return Err(HeaderError::TooLarge);
            }
            let stands_still = taken == 0 && plain.len() == before.1;
            if plain.len() == plain.capacity() {
                plain.reserve(plain.len().min(LARGEST.saturating_sub(plain.len())));
            } else if block.is_empty() || stands_still {
                break;
            }
        }
        if !block.is_empty() {
            return Err(HeaderError::Compression);
        }
        Headers::of_block(&plain)
    }
}

/// Writes the header blocks of one direction.
pub struct HeaderEncoder(Compress);

impl Default for HeaderEncoder {
    fn default() -> Self {
        let mut compress = Compress::new(Compression::default(), true);
        compress.set_dictionary(&DICTIONARY).expect("a new stream takes a dictionary");
        Self(compress)
    }
}

impl HeaderEncoder {
    /// The next block.
    pub fn encode(&mut self, headers: &Headers) -> Vec<u8> {
        let plain = headers.to_block();
        let mut rest = plain.as_slice();
        let mut block = Vec::with_capacity(256);
        loop {
            let before = self.0.total_in();
            self.0.compress_vec(rest, &mut block, FlushCompress::Sync).expect("a stream that was not ended goes on");
            let taken = usize::try_from(self.0.total_in().saturating_sub(before)).unwrap_or(usize::MAX);
            rest = rest.get(taken..).unwrap_or_default();
            // Room that is left says that all is written.
            if rest.is_empty() && block.len() < block.capacity() {
                return block;
            }
            block.reserve(256);
        }
    }
}

/// Words behind their lengths, then text.
static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let words = DICTIONARY_WORDS.iter().flat_map(|word| {
        let length = u32::try_from(word.len()).unwrap_or_default().to_be_bytes();
        length.into_iter().chain(word.bytes())
    });
    words.chain(DICTIONARY_TEXT.bytes()).collect()
});

#[rustfmt::skip]
const DICTIONARY_WORDS: [&str; 65] = [
    "options", "head", "post", "put", "delete", "trace", "accept", "accept-charset", "accept-encoding",
    "accept-language", "accept-ranges", "age", "allow", "authorization", "cache-control", "connection",
    "content-base", "content-encoding", "content-language", "content-length", "content-location", "content-md5",
    "content-range", "content-type", "date", "etag", "expect", "expires", "from", "host", "if-match",
    "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "last-modified", "location",
    "max-forwards", "pragma", "proxy-authenticate", "proxy-authorization", "range", "referer", "retry-after",
    "server", "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "vary", "via", "warning",
    "www-authenticate", "method", "get", "status", "200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie",
    "keep-alive", "origin",
];

const DICTIONARY_TEXT: &str = "\
    100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 N\
    on-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized4\
    03 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJa\
    n Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTc\
    hunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain\
    ,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,e\
    nq=0.";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzzing::fuzz;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().copied().collect()
    }

    #[test]
    fn the_dictionary_is_that_of_the_protocol() {
        assert_eq!(DICTIONARY.len(), 1423);
        let mut compress = Compress::new(Compression::default(), true);
        assert_eq!(compress.set_dictionary(&DICTIONARY).unwrap(), 0xe3c6_a7c2, "its Adler-32, by which it is named");
    }

    /// As `moby/spdystream` writes it: `streamtype: error`.
    #[test]
    fn a_block_of_kubernetes_own_library_is_read() {
        let block = hex::decode(MOBY_BLOCK).unwrap();
        let read = HeaderDecoder::default().decode(&block).unwrap();
        assert_eq!(read, headers(&[("streamtype", "error")]));
    }

    const MOBY_BLOCK: &str = "78f9e3c6a7c26260606004a7b392a2d4c45c6851c29a0a0a6800000000ffff";

    #[test]
    fn blocks_follow_each_other_in_one_stream() {
        let (mut encoder, mut decoder) = (HeaderEncoder::default(), HeaderDecoder::default());
        let long = "x".repeat(4000);
        for pairs in [&[("streamtype", "data"), ("port", "80")][..], &[], &[("a", &long)], &[("streamtype", "error")]] {
            let block = encoder.encode(&headers(pairs));
            assert_eq!(decoder.decode(&block).unwrap(), headers(pairs));
        }
    }

    #[test]
    fn a_block_that_grows_too_large_is_refused_before_it_does() {
        let huge = "x".repeat(100_000_000);
        let block = HeaderEncoder::default().encode(&headers(&[("a", &huge)]));
        assert!(block.len() < 1_000_000);
        assert_eq!(HeaderDecoder::default().decode(&block), Err(HeaderError::TooLarge));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for block in [&[0, 0, 0, 1][..], &[0, 0, 0, 1, 0, 0, 0, 9, b'a'], &[]] {
            assert_eq!(Headers::of_block(block), Err(HeaderError::Malformed), "{block:?}");
        }
    }

    #[test]
    fn a_block_of_many_empty_headers_is_refused_before_they_are_made() {
        let empty = |count: usize| std::iter::repeat_n(("", ""), count).collect::<Headers>();
        let decode = |headers| HeaderDecoder::default().decode(&HeaderEncoder::default().encode(&headers));
        assert_eq!(decode(empty(16)), Ok(empty(16)));
        assert_eq!(decode(empty(17)), Err(HeaderError::TooMany));
        assert_eq!(Headers::of_block(&[0xff; 4]), Err(HeaderError::TooMany));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic() {
        fuzz(proptest::collection::vec(any::<Vec<u8>>(), 1..4), |blocks| {
            let mut decoder = HeaderDecoder::default();
            for block in blocks {
                let _read_or_refused = decoder.decode(&block);
            }
            Ok(())
        });
    }

    #[test]
    fn a_damaged_block_is_read_or_refused() {
        fuzz((0usize..60, any::<u8>(), 0usize..60), |(at, to, cut)| {
            let mut block = HeaderEncoder::default().encode(&headers(&[("streamtype", "data"), ("requestid", "17")]));
            block.truncate(block.len().saturating_sub(cut));
            if let Some(byte) = block.get_mut(at) {
                *byte = to;
            }
            let _read_or_refused = HeaderDecoder::default().decode(&block);
            Ok(())
        });
    }
}
