//! The container of a saved index: one Arrow IPC file of one record batch.
//!
//! Columns of fixed width, named and typed, lie in the file as they lie in memory, so that a
//! loader maps them rather than reads them, and pyarrow, pandas and Polars read the user's data
//! without us. Arrow has no checksums and no rule for how a file is replaced; both
//! are added here, inside what Arrow allows. What the columns mean is the caller's business.
//!
//! # Layout
//!
//! | bytes | what it is | what protects it |
//! |---|---|---|
//! | head | `ARROW1`, the schema with the caller's metadata, the record batch's description | `omendb.head` |
//! | body | each column's values, little-endian, 64-byte aligned, padded with zeros | `omendb.blocks` |
//! | end mark | eight fixed bytes | compared |
//! | footer | the schema again, the place of the batch, the four entries below | `omendb.seal` |
//! | tail | the footer's length, `ARROW1` | both follow from the rest |
//!
//! The footer's own metadata holds, in hexadecimal: `omendb.format`, the version of this layout;
//! `omendb.head`, the head's checksum; `omendb.blocks`, one for every 64 KiB of every column, its
//! padding included, in the order of the file; and `omendb.seal`, the footer's own. That one is
//! the footer's last string, computed over all that stands before it, and so is checked before
//! anything is parsed. A checksum is zlib's CRC-32 (Python: `zlib.crc32`) as eight digits, the
//! least significant byte first. Every byte of the file is under one of them: each change of a
//! single byte, and each truncation, is found.
//!
//! Checksums find accidents, not malice: a crafted file has good ones. So exactly one layout is
//! accepted for given rows and columns, the one [`write`] makes; it is computed again with
//! checked arithmetic, and the file's description must equal it. No number of a file is used to
//! allocate or to index before that.
//!
//! # What is verified when
//!
//! [`Mapped::open`] checks the head, the end mark, the footer and that they agree: it reads no
//! column and takes the time of a few page faults, however large the file. Columns are checked
//! block by block at first touch: a caller states what it is about to read to [`Mapped::verify`]
//! (or reads by [`Mapped::values`]), and a block once found good costs one atomic load.
//! [`Mapped::check`] verifies all.
//!
//! # Assumptions about the disk
//!
//! A file appears complete or not at all: it is written under another name in the same folder,
//! synced, renamed, and the folder is synced. The old file keeps its bytes as long as it is
//! mapped. What nobody can prevent: another program that writes into a mapped file changes what
//! was verified (no reference is ever formed to mapped bytes, and every index read from a column
//! must be checked where it is used), and one that truncates it ends this process with SIGBUS at
//! the next touch. Replace files by renaming, as [`write`] does.

mod format;
mod map;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub(crate) use read::{Mapped, View, explore};
pub(crate) use write::{Column, write};

use half::f16;

/// Bytes under one checksum.
pub(crate) const BLOCK: usize = 64 * 1024;
/// Every column begins at a multiple of it.
const ALIGN: usize = 64;

/// The number type of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    I64,
    I8,
    U8,
    /// Also the bits of bfloat16, which Arrow does not know.
    U16,
    U32,
    F16,
    F32,
    F64,
}

impl Kind {
    /// Bytes of one value.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::I64 | Self::F64 => 8,
            Self::U32 | Self::F32 => 4,
            Self::U16 | Self::F16 => 2,
            Self::I8 | Self::U8 => 1,
        }
    }
}

/// A column without its values: `width` of them a row, 0 where a row is one plain value.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shape {
    name: String,
    kind: Kind,
    width: usize,
}

/// A number that goes to a file and comes back, little-endian there.
pub(crate) trait Value: Copy + Send + Sync {
    /// Its tag.
    const KIND: Kind;
    /// Appends the bytes of `values`.
    fn put(values: &[Self], bytes: &mut Vec<u8>);
    /// Appends the values of `bytes`.
    fn take(bytes: &[u8], values: &mut Vec<Self>);
}

macro_rules! values {
    ($($type:ty => $kind:ident),*) => {
        $(impl Value for $type {
            const KIND: Kind = Kind::$kind;

            fn put(values: &[Self], bytes: &mut Vec<u8>) {
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }

            fn take(bytes: &[u8], values: &mut Vec<Self>) {
                let (whole, _) = bytes.as_chunks::<{ size_of::<$type>() }>();
                values.extend(whole.iter().map(|bytes| <$type>::from_le_bytes(*bytes)));
            }
        })*
    };
}
values!(i64 => I64, i8 => I8, u8 => U8, u16 => U16, u32 => U32, f16 => F16, f32 => F32, f64 => F64);

/// Bytes as text: two hexadecimal digits each. For metadata, which must be UTF-8.
pub(crate) fn to_hex(bytes: impl IntoIterator<Item = u8>) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('?');
    bytes.into_iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The bytes of such a text; none if it is no such text. Capital digits are refused: a text
/// has one reading and bytes have one text.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}
