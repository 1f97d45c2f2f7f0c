//! iSCSI's PDUs as bytes (RFC 7143 §11): a header of 48 bytes, additional headers, data padded to four.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};

/// More than any target sends us: we have asked for 64 KiB.
const DATA_BYTES_MAX: usize = 256 << 10;

/// A header, as far as any PDU of ours has it.
#[derive(Debug, Clone, Default)]
pub(super) struct Basic {
    pub(super) opcode: u8,
    pub(super) flags: u8,
    /// Byte 3.
    pub(super) scsi_status: u8,
    /// Bytes 8 to 15: LUN, or ISID and TSIH.
    pub(super) lun: [u8; 8],
    /// Bytes 16 to 19: initiator task tag.
    pub(super) task: u32,
    /// Bytes 20 to 47.
    pub(super) words: [u32; 7],
}

/// A PDU.
#[derive(Debug)]
pub(super) struct Pdu {
    pub(super) basic: Basic,
    pub(super) data: Vec<u8>,
}

impl Basic {
    /// Sends it, and data with it.
    pub(super) fn send(&self, to: &mut impl Write, data: &[u8]) -> io::Result<()> {
        let mut bytes = vec![self.opcode, self.flags, 0, 0];
        let length = u32::try_from(data.len()).map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
        // The first byte, number of additional headers, is 0.
        bytes.extend(length.to_be_bytes());
        bytes.extend(self.lun);
        bytes.extend(self.task.to_be_bytes());
        self.words.iter().for_each(|word| bytes.extend(word.to_be_bytes()));
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        to.write_all(&bytes)
    }
}

/// Waits for one PDU.
pub(super) fn read_pdu(from: &mut impl Read) -> io::Result<Pdu> {
    let mut head = [0; 48];
    from.read_exact(&mut head)?;
    let mut words = [0; 7];
    words.iter_mut().zip(head[20..].chunks_exact(4)).for_each(|(word, bytes)| *word = be32(bytes));
    let mut lun = [0; 8];
    lun.copy_from_slice(&head[8..16]);
    let basic =
        Basic { opcode: head[0] & 0x3f, flags: head[1], scsi_status: head[3], lun, task: be32(&head[16..20]), words };
    let length = (be32(&head[4..8]) & 0x00ff_ffff) as usize;
    if length > DATA_BYTES_MAX {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("{length} bytes of data")));
    }
    let headers = usize::from(head[4]) * 4;
    let mut data = vec![0; headers + length.next_multiple_of(4)];
    from.read_exact(&mut data)?;
    data.drain(..headers);
    data.truncate(length);
    Ok(Pdu { basic, data })
}

/// `key=value` pairs, each with a zero byte behind it.
pub(super) fn text_of(keys: &[&str]) -> Vec<u8> {
    keys.iter().flat_map(|key| key.bytes().chain([0])).collect()
}

pub(super) fn text_keys(pdu: &Pdu) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(&pdu.data);
    let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Four bytes in network order; fewer count as zeros in front.
pub(super) fn be32(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |word, byte| word << 8 | u32::from(*byte))
}
