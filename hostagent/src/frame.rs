//! Frames of a migration stream between two agents, after the permit was taken.
//!
//! ```text
//! u32 length, big endian │ u8 channel │ length bytes
//! source -> target  channel 0: what xl writes        channel 1: Note::Stopped, Note::Frozen
//! target -> source  channel 0: what xl is to read    channel 1: Note::Ready, Note::Failed
//! ```
//! Owns: reading and writing frames, and the notes. Never does: meaning anything by them.

use serde::{Deserialize, Serialize};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest frame's bytes.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;

/// The stream of xl.
pub const STREAM: u8 = 0;
/// Notes, JSON.
pub const NOTES: u8 = 1;

/// What the two agents tell each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "snake_case")]
pub enum Note {
    /// The guest stands still at the source.
    Stopped {
        /// Milliseconds between that and the sending of this note.
        ago_ms: u64,
    },
    /// The guest is at the target whole, paused.
    Ready,
    /// The source's word: the guest is suspended there and nobody is left who would resume it without an order.
    Frozen,
    /// The target could not receive.
    Failed {
        /// Why.
        why: String,
    },
}

/// One frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// Bytes of the stream.
    Stream(Vec<u8>),
    /// A note.
    Note(Note),
}

/// Reads a frame; `None` at an end between frames.
///
/// # Errors
/// A broken connection, an end within a frame, or what is no frame.
pub async fn read<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<Option<Frame>> {
    let mut head = [0; 5];
    let mut have = 0;
    while have < head.len() {
        match from.read(&mut head[have..]).await? {
            0 if have == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => have += n,
        }
    }
    let [a, b, c, d, channel] = head;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(wrong(format!("a frame of {length} bytes, {FRAME_BYTES_MAX} at most")));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    match channel {
        STREAM => Ok(Some(Frame::Stream(bytes))),
        NOTES => match serde_json::from_slice(&bytes) {
            Ok(note) => Ok(Some(Frame::Note(note))),
            Err(e) => Err(wrong(format!("a note that cannot be read: {e}"))),
        },
        other => Err(wrong(format!("channel {other}"))),
    }
}

/// Writes bytes of the stream, at most [`FRAME_BYTES_MAX`].
///
/// # Errors
/// A broken connection.
pub async fn write_stream<W: AsyncWrite + Unpin>(to: &mut W, bytes: &[u8]) -> io::Result<()> {
    for part in bytes.chunks(FRAME_BYTES_MAX) {
        write(to, STREAM, part).await?;
    }
    Ok(())
}

/// Writes a note and sees that it leaves.
///
/// # Errors
/// A broken connection.
pub async fn write_note<W: AsyncWrite + Unpin>(to: &mut W, note: &Note) -> io::Result<()> {
    write(to, NOTES, &serde_json::to_vec(note)?).await?;
    to.flush().await
}

async fn write<W: AsyncWrite + Unpin>(to: &mut W, channel: u8, bytes: &[u8]) -> io::Result<()> {
    let [a, b, c, d] = (bytes.len() as u32).to_be_bytes();
    to.write_all(&[a, b, c, d, channel]).await?;
    to.write_all(bytes).await
}

fn wrong(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block_on<T>(what: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(what)
    }

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let note = prop_oneof![
            any::<u64>().prop_map(|ago_ms| Note::Stopped { ago_ms }),
            Just(Note::Ready),
            Just(Note::Frozen),
            ".*".prop_map(|why| Note::Failed { why }),
        ];
        let bytes = proptest::collection::vec(any::<u8>(), 0..2000);
        proptest::collection::vec(prop_oneof![bytes.prop_map(Frame::Stream), note.prop_map(Frame::Note)], 0..8)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(frames in frames()) {
            block_on(async {
                let mut wire = Vec::new();
                for frame in &frames {
                    match frame {
                        // An empty write makes no frame.
                        Frame::Stream(b) => write(&mut wire, STREAM, b).await.expect("memory takes all"),
                        Frame::Note(n) => write_note(&mut wire, n).await.expect("memory takes all"),
                    }
                }
                let mut from = &wire[..];
                for frame in frames {
                    assert_eq!(read(&mut from).await.expect("well formed"), Some(frame));
                }
                assert_eq!(read(&mut from).await.expect("at the end"), None);
            });
        }

        #[test]
        fn nothing_read_panics(wire in proptest::collection::vec(any::<u8>(), 0..300)) {
            block_on(async {
                let mut from = &wire[..];
                while let Ok(Some(_)) = read(&mut from).await {}
            });
        }
    }

    #[test]
    fn a_giant_is_refused() {
        let read = block_on(async { read(&mut &[0xff, 0xff, 0xff, 0xff, 0][..]).await });
        assert!(read.expect_err("too long").to_string().contains("a frame of 4294967295 bytes"));
    }
}
