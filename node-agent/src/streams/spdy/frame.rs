//! Frames of SPDY/3.1 as bytes, both ways (section 2.2 and 2.6).
//!
//! Whatever length a frame claims, little of it is held: control frames have a limit, and data is passed on as it
//! comes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::header_block::{HeaderDecoder, HeaderEncoder, HeaderError, Headers};

/// Number of a stream: odd for those that the client opened.
pub type StreamId = u32;

/// One frame; of a data frame perhaps only a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A new stream; with `fin` its sender sends nothing on it.
    SynStream { stream: StreamId, fin: bool, headers: Headers },
    /// The stream is accepted.
    SynReply { stream: StreamId, fin: bool, headers: Headers },
    /// The stream is over, both ways, whatever was still to come.
    RstStream { stream: StreamId, status: ResetStatus },
    /// To be sent back.
    Ping(u32),
    /// No new streams are taken.
    GoAway { last: StreamId },
    /// Bytes; with `fin` the last ones of this direction.
    Data { stream: StreamId, fin: bool, bytes: Bytes },
    /// Nothing to do: settings, windows, priorities, further headers.
    Ignored,
}

/// Why a stream was reset, in the protocol's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetStatus(pub u32);

impl ResetStatus {
    /// The stream breaks the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// It was not looked at, and may be tried again.
    pub const REFUSED_STREAM: Self = Self(3);
    /// It is not wanted any more.
    pub const CANCEL: Self = Self(5);
}

/// Why frames cannot be read any more.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection broke, or ended within a frame.
    #[error("cannot read a frame")]
    Read(#[from] std::io::Error),
    /// Another protocol, or another version.
    #[error("SPDY version {0} instead of 3")]
    Version(u16),
    /// Not one of the protocol's.
    #[error("unknown control frame {0}")]
    Kind(u16),
    /// Kubernetes' clients send some hundred bytes.
    #[error("a control frame of {0} bytes")]
    TooLarge(usize),
    /// It is too short for what it is.
    #[error("a control frame of kind {0} is cut off")]
    Short(u16),
    /// Its headers cannot be read.
    #[error(transparent)]
    Headers(#[from] HeaderError),
}

const VERSION: u16 = 3;
const CONTROL: u32 = 1 << 31;
const FIN: u8 = 1;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GO_AWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;
/// What both kinds of frames begin with.
const HEAD: usize = 8;
/// Of a control frame.
const LARGEST_CONTROL: usize = 64 * 1024;
/// Of a part of a data frame that is read.
const LARGEST_PART: usize = 16 * 1024;
/// Of a data frame that is written.
pub const LARGEST_DATA: usize = 32 * 1024;

/// Reads frames.
#[derive(Default)]
pub struct FrameDecoder {
    headers: HeaderDecoder,
    data: Option<DataFrame>,
}

/// A data frame of which `left` bytes are still to come.
#[derive(Clone, Copy)]
struct DataFrame {
    stream: StreamId,
    fin: bool,
    left: usize,
}

impl Decoder for FrameDecoder {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        if let Some(data) = self.data {
            return Ok(self.part(data, src));
        }
        let Some(head) = src.first_chunk::<HEAD>().copied() else { return Ok(None) };
        let (mut id, mut rest) = (&head[..4], &head[4..]);
        let (id, rest) = (id.get_u32(), rest.get_u32());
        let [flags, ..] = rest.to_be_bytes();
        let length = usize::try_from(rest & 0x00ff_ffff).unwrap_or(usize::MAX);
        if id & CONTROL == 0 {
            src.advance(HEAD);
            return Ok(self.part(DataFrame { stream: id, fin: flags & FIN != 0, left: length }, src));
        }
        let [a, b, c, d] = id.to_be_bytes();
        let (version, kind) = (u16::from_be_bytes([a & 0x7f, b]), u16::from_be_bytes([c, d]));
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if length > LARGEST_CONTROL {
            return Err(FrameError::TooLarge(length));
        }
        let whole = HEAD.saturating_add(length);
        if src.len() < whole {
            src.reserve(whole.saturating_sub(src.len()));
            return Ok(None);
        }
        let mut body = src.split_to(whole).freeze();
        body.advance(HEAD);
        self.control(kind, flags & FIN != 0, body).map(Some)
    }
}

impl FrameDecoder {
    /// As much of a data frame as has come.
    fn part(&mut self, data: DataFrame, src: &mut BytesMut) -> Option<Frame> {
        let length = data.left.min(src.len()).min(LARGEST_PART);
        // Copied: a slice would keep the whole buffer alive, which a long control frame makes larger than many parts.
        let bytes = Bytes::copy_from_slice(&src[..length]);
        src.advance(length);
        let left = data.left.saturating_sub(bytes.len());
        self.data = (left > 0).then_some(DataFrame { left, ..data });
        if bytes.is_empty() && left > 0 {
            return None;
        }
        Some(Frame::Data { stream: data.stream, fin: data.fin && left == 0, bytes })
    }

    fn control(&mut self, kind: u16, fin: bool, mut body: Bytes) -> Result<Frame, FrameError> {
        let mut number = || body.try_get_u32().map_err(|_| FrameError::Short(kind));
        match kind {
            SYN_STREAM => {
                let (stream, _associated) = (number()? & !CONTROL, number()?);
                let _priority = body.try_get_u16().map_err(|_| FrameError::Short(kind))?;
                Ok(Frame::SynStream { stream, fin, headers: self.headers.decode(&body)? })
            }
            SYN_REPLY => {
                let stream = number()? & !CONTROL;
                Ok(Frame::SynReply { stream, fin, headers: self.headers.decode(&body)? })
            }
            HEADERS => {
                number()?;
                // Read, since the next block continues it.
                self.headers.decode(&body)?;
                Ok(Frame::Ignored)
            }
            RST_STREAM => Ok(Frame::RstStream { stream: number()? & !CONTROL, status: ResetStatus(number()?) }),
            PING => Ok(Frame::Ping(number()?)),
            GO_AWAY => Ok(Frame::GoAway { last: number()? & !CONTROL }),
            SETTINGS | WINDOW_UPDATE => Ok(Frame::Ignored),
            kind => Err(FrameError::Kind(kind)),
        }
    }
}

/// Writes frames.
#[derive(Default)]
pub struct FrameEncoder(HeaderEncoder);

impl Encoder<Frame> for FrameEncoder {
    type Error = std::io::Error;

    fn encode(&mut self, frame: Frame, dst: &mut BytesMut) -> Result<(), std::io::Error> {
        match frame {
            Frame::SynStream { stream, fin, headers } => {
                let mut body = BytesMut::new();
                body.put_u32(stream);
                body.put_bytes(0, 6);
                body.put_slice(&self.0.encode(&headers));
                control(SYN_STREAM, fin, &body, dst);
            }
            Frame::SynReply { stream, fin, headers } => {
                let mut body = BytesMut::new();
                body.put_u32(stream);
                body.put_slice(&self.0.encode(&headers));
                control(SYN_REPLY, fin, &body, dst);
            }
            Frame::RstStream { stream, status } => {
                control(RST_STREAM, false, &[stream.to_be_bytes(), status.0.to_be_bytes()].concat(), dst);
            }
            Frame::Ping(id) => control(PING, false, &id.to_be_bytes(), dst),
            Frame::GoAway { last } => control(GO_AWAY, false, &[last.to_be_bytes(), [0; 4]].concat(), dst),
            Frame::Data { stream, fin, bytes } => {
                dst.reserve(HEAD.saturating_add(bytes.len()));
                dst.put_u32(stream & !CONTROL);
                put_flags_and_length(fin, bytes.len(), dst);
                dst.put_slice(&bytes);
            }
            Frame::Ignored => {}
        }
        Ok(())
    }
}

fn control(kind: u16, fin: bool, body: &[u8], dst: &mut BytesMut) {
    dst.put_u16(VERSION | 1 << 15);
    dst.put_u16(kind);
    put_flags_and_length(fin, body.len(), dst);
    dst.put_slice(body);
}

fn put_flags_and_length(fin: bool, length: usize, dst: &mut BytesMut) {
    // No frame is made that is longer than some ten thousand bytes.
    let [_, length @ ..] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    dst.put_u8(if fin { FIN } else { 0 });
    dst.put_slice(&length);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzzing::fuzz;

    fn all(bytes: &[u8], step: usize) -> Result<Vec<Frame>, FrameError> {
        let (mut decoder, mut buffer, mut frames) = (FrameDecoder::default(), BytesMut::new(), Vec::new());
        for part in bytes.chunks(step) {
            buffer.extend_from_slice(part);
            while let Some(frame) = decoder.decode(&mut buffer)? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    fn headers(kind: &str) -> Headers {
        [("streamtype", kind)].into_iter().collect()
    }

    fn data(stream: StreamId, fin: bool, text: &'static str) -> Frame {
        Frame::Data { stream, fin, bytes: text.into() }
    }

    #[test]
    fn a_part_keeps_no_more_alive_than_itself() {
        let mut buffer = BytesMut::from(&[0x80, 3, 0, 4, 0, 0, 0xff, 0xff][..]);
        let mut decoder = FrameDecoder::default();
        assert_eq!(decoder.decode(&mut buffer).unwrap(), None, "settings of 64 KiB are on their way");
        buffer.put_bytes(0, 0xffff);
        buffer.put_slice(&[0, 0, 0, 3, 0, 0, 0, 2, b'a']);
        assert_eq!(decoder.decode(&mut buffer).unwrap(), Some(Frame::Ignored));
        let Some(Frame::Data { bytes, .. }) = decoder.decode(&mut buffer).unwrap() else { panic!("there is a part") };
        drop(buffer);
        assert!(bytes.try_into_mut().unwrap().capacity() < 1024);
    }

    /// What `moby/spdystream` 0.5.1 wrote.
    #[test]
    fn frames_of_kubernetes_own_library_are_read() {
        let bytes = hex::decode(concat!(
            "80030001000000290000000100000000000078f9e3c6a7c26260606004a7b392a2d4c45c6851c29a0a0a6800000000ffff",
            "800300010000001700000003000000000000c22e555c92929907000000ffff",
            "000000030000000568656c6c6f0000000301000000",
            "800300060000000400000001",
            "80030003000000080000000100000005",
            "80030007000000080000000000000000",
        ))
        .unwrap();
        let wanted = [
            Frame::SynStream { stream: 1, fin: false, headers: headers("error") },
            Frame::SynStream { stream: 3, fin: false, headers: headers("stdin") },
            data(3, false, "hello"),
            data(3, true, ""),
            Frame::Ping(1),
            Frame::RstStream { stream: 1, status: ResetStatus::CANCEL },
            Frame::GoAway { last: 0 },
        ];
        assert_eq!(all(&bytes, bytes.len()).unwrap(), wanted);
    }

    #[test]
    fn what_is_written_is_read_however_it_is_cut() {
        let frames = [
            Frame::SynStream { stream: 1, fin: true, headers: headers("error") },
            Frame::SynReply { stream: 1, fin: false, headers: Headers::default() },
            data(1, true, ""),
            Frame::Ping(7),
            Frame::RstStream { stream: 1, status: ResetStatus::REFUSED_STREAM },
            Frame::GoAway { last: 3 },
        ];
        let (mut encoder, mut bytes) = (FrameEncoder::default(), BytesMut::new());
        for frame in frames.clone() {
            encoder.encode(frame, &mut bytes).unwrap();
        }
        for step in 1..=bytes.len() {
            assert_eq!(all(&bytes, step).unwrap(), frames, "{step}");
        }
    }

    #[test]
    fn a_huge_data_frame_is_passed_on_in_parts_and_ends_once() {
        let (mut encoder, mut bytes) = (FrameEncoder::default(), BytesMut::new());
        let sent = vec![7; 1_000_000];
        encoder.encode(Frame::Data { stream: 5, fin: true, bytes: sent.clone().into() }, &mut bytes).unwrap();
        let (mut got, mut ends) = (Vec::new(), 0);
        for frame in all(&bytes, 50_000).unwrap() {
            let Frame::Data { stream: 5, fin, bytes } = frame else { panic!("{frame:?}") };
            assert!(bytes.len() <= LARGEST_PART);
            ends += u32::from(fin);
            got.extend_from_slice(&bytes);
        }
        assert_eq!((ends, got), (1, sent));
    }

    #[test]
    fn a_control_frame_that_claims_too_much_is_refused_at_its_head() {
        for head in ["80030001ffffffff", "8003000400ffffff"] {
            assert!(matches!(all(&hex::decode(head).unwrap(), 8), Err(FrameError::TooLarge(_))), "{head}");
        }
        assert!(matches!(all(&hex::decode("8002000600000004").unwrap(), 8), Err(FrameError::Version(2))));
        assert!(matches!(all(&hex::decode("8003006300000000").unwrap(), 8), Err(FrameError::Kind(0x63))));
        assert!(matches!(all(&hex::decode("800300060000000200000000").unwrap(), 8), Err(FrameError::Short(PING))));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic_or_hold_much() {
        let kinds = prop_oneof![Just(0x8003_0000u32), Just(0)];
        let frame = (kinds, 0u32..12, any::<u8>(), 0u32..40, proptest::collection::vec(any::<u8>(), 0..60));
        fuzz(proptest::collection::vec(frame, 1..6), |frames| {
            let mut bytes = BytesMut::new();
            for (version, kind, flags, length, body) in frames {
                bytes.put_u32(version | kind);
                bytes.put_u32(u32::from(flags) << 24 | length);
                bytes.put_slice(&body);
            }
            for step in [1, 7, bytes.len()] {
                let _read_or_refused = all(&bytes, step);
            }
            Ok(())
        });
    }
}
