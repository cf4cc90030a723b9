//! The container of a saved index: one Arrow IPC file of one record batch.
//!
//! Columns, named and typed, lie in the file as they lie in memory, so that a loader maps those of
//! fixed width rather than reads them, and pyarrow, pandas, Polars and `DuckDB` read the user's data
//! without us. Arrow has no checksums and no rule for how a file is replaced; both
//! are added here, inside what Arrow allows. What the columns mean is the caller's business.
//!
//! The columns that a search needs are plain numbers, or lists of so many, and never null: they are
//! read in pieces, by [`Mapped::values`]. Any others are Arrow arrays ([`arrays`]): booleans, numbers,
//! decimals, dates, times, text, bytes, and dictionaries of such. They are copied when they are read,
//! since text that another program changes under us would be undefined behaviour.
//!
//! Dictionaries lie in the file as such, each in a batch of its own before the columns. Decoded values
//! would be simpler here, but the order of categories, and those that no row has, would then need a
//! place that no other program looks at; so pandas finds its categories again, and a text that a
//! million rows share is stored once.
//!
//! # Layout
//!
//! | bytes | what it is | what protects it |
//! |---|---|---|
//! | head | `ARROW1`, the schema with the caller's metadata | `omendb.head` |
//! | dictionaries | each one's description, and its buffers like those of the body | `omendb.head`, `omendb.blocks` |
//! | description | of the record batch, where all buffers of the body are | `omendb.head` |
//! | body | each column's buffers, little-endian, 64-byte aligned, padded with zeros | `omendb.blocks` |
//! | end mark | eight fixed bytes | compared |
//! | footer | the schema again, the places of all batches, the four entries below | `omendb.seal` |
//! | tail | the footer's length, `ARROW1` | both follow from the rest |
//!
//! The footer's own metadata holds, in hexadecimal: `omendb.format`, the version of this layout;
//! `omendb.head`, the checksum of all that stands before and between the buffers; `omendb.blocks`,
//! one for every 64 KiB of every buffer, its padding included, in the order of the file; and `omendb.seal`, the footer's own. That one is
//! the footer's last string, computed over all that stands before it, and so is checked before
//! anything is parsed. A checksum is zlib's CRC-32 (Python: `zlib.crc32`) as eight digits, the
//! least significant byte first. Every byte of the file is under one of them: each change of a
//! single byte, and each truncation, is found.
//!
//! Checksums find accidents, not malice: a crafted file has good ones. So exactly one layout is
//! accepted for given rows and columns, the one [`write`] makes; it is computed again with
//! checked arithmetic, and the file's description must equal it. Three kinds of numbers are taken
//! from the description, as nothing else says them: how many values of a column are null, how many
//! bytes its text has, and how many values a dictionary has. All places follow from them, and must end
//! where the file ends. No number of a file is used to allocate or to index before that. What lies
//! in an array (offsets, UTF-8, keys of a dictionary, the digits of a decimal) is checked when it is
//! copied, before an array is made of it.
//!
//! Format 1 had neither arrays nor dictionaries, and is the same otherwise; both are read.
//!
//! # What is verified when
//!
//! [`Mapped::open`] checks the head, the end mark, the footer and that they agree: it reads no
//! column and takes the time of a few page faults, however large the file. Columns are checked
//! block by block at first touch: a caller states what it is about to read to [`Mapped::verify`]
//! (or reads by [`Mapped::values`]), and a block once found good costs one atomic load.
//! [`Mapped::check`] verifies whole columns.
//!
//! # Assumptions about the disk
//!
//! A file appears complete or not at all: it is written under another name in the same folder,
//! synced, renamed, and the folder is synced. The old file keeps its bytes as long as it is
//! mapped. What nobody can prevent: another program that writes into a mapped file changes what
//! was verified (no reference is ever formed to mapped bytes, and every index read from a column
//! must be checked where it is used), and one that truncates it ends this process with SIGBUS at
//! the next touch. Replace files by renaming, as [`write`] does.

#[cfg(feature = "table")]
mod arrays;
mod format;
mod map;
mod read;
mod write;

#[cfg(test)]
#[cfg(feature = "table")]
mod array_tests;
#[cfg(test)]
mod tests;

pub(crate) use read::{Mapped, View, explore};
pub(crate) use write::{Column, write};

use std::sync::Arc;

use arrow_schema::{DataType, Field};
use half::f16;

/// Bytes under one checksum.
pub(crate) const BLOCK: usize = 64 * 1024;
/// Every buffer begins at a multiple of it.
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
    /// NumPy's name.
    fn name(self) -> &'static str {
        match self {
            Self::I64 => "int64",
            Self::I8 => "int8",
            Self::U8 => "uint8",
            Self::U16 => "uint16",
            Self::U32 => "uint32",
            Self::F16 => "float16",
            Self::F32 => "float32",
            Self::F64 => "float64",
        }
    }

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

/// Each kind, and what Arrow calls it.
const KINDS: [(Kind, DataType); 8] = [
    (Kind::I64, DataType::Int64),
    (Kind::I8, DataType::Int8),
    (Kind::U8, DataType::UInt8),
    (Kind::U16, DataType::UInt16),
    (Kind::U32, DataType::UInt32),
    (Kind::F16, DataType::Float16),
    (Kind::F32, DataType::Float32),
    (Kind::F64, DataType::Float64),
];

/// How the values of a column lie in its buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// In none: all are null.
    Nothing,
    /// A bit for each.
    Bits,
    /// So many bytes for each.
    Fixed(usize),
    /// Bytes between offsets, each of so many bytes.
    Variable(usize),
    /// So many numbers of one kind for each row. Neither is ever null.
    List(usize, Kind),
}

impl Form {
    /// None for what a file does not hold.
    fn of(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Null => Self::Nothing,
            DataType::Boolean => Self::Bits,
            DataType::Utf8 | DataType::Binary => Self::Variable(4),
            DataType::LargeUtf8 | DataType::LargeBinary => Self::Variable(8),
            DataType::FixedSizeBinary(size) => Self::Fixed(usize::try_from(*size).ok()?),
            DataType::FixedSizeList(item, width) if !item.is_nullable() => {
                let kind = KINDS.iter().find(|(_, data_type)| data_type == item.data_type())?.0;
                Self::List(usize::try_from(*width).ok().filter(|&width| width > 0)?, kind)
            }
            DataType::Dictionary(key, value) if key.is_dictionary_key_type() => {
                let form = Self::of(value)?;
                let nested = matches!(form, Self::Nothing | Self::List(..)) || is_dictionary(value);
                Self::of(key).filter(|_| !nested)?
            }
            DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal256(..) => {
                return None;
            }
            DataType::Interval(_) => return None,
            other => Self::Fixed(other.primitive_width()?),
        })
    }
}

fn is_dictionary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Dictionary(..))
}

/// A column, or a dictionary, without its values.
#[derive(Debug, Clone)]
struct Shape {
    field: Field,
    form: Form,
    /// How many values are null.
    nulls: usize,
    /// Bytes between all offsets, where there are any.
    bytes: usize,
}

impl Shape {
    /// None for a type that a file does not hold.
    fn new(field: Field) -> Option<Self> {
        let form = Form::of(field.data_type())?;
        Some(Self { field, form, nulls: 0, bytes: 0 })
    }

    /// A column of numbers: `width` of them a row, 0 where a row is one plain value.
    fn of_numbers(name: &str, kind: Kind, width: usize) -> Self {
        let number = KINDS.iter().find(|(other, _)| *other == kind);
        let number = number.map_or(DataType::Null, |(_, data_type)| data_type.clone());
        let (form, data_type) = if width == 0 {
            (Form::Fixed(kind.size()), number)
        } else {
            // A list that is too wide for Arrow has no layout.
            let size = i32::try_from(width).unwrap_or(i32::MAX);
            let item = Arc::new(Field::new("item", number, false));
            (Form::List(width, kind), DataType::FixedSizeList(item, size))
        };
        Self { field: Field::new(name, data_type, false), form, nulls: 0, bytes: 0 }
    }

    /// The dictionary of a column of keys.
    fn dictionary(&self) -> Option<Self> {
        let DataType::Dictionary(_, value) = self.field.data_type() else { return None };
        Self::new(Field::new(self.field.name(), value.as_ref().clone(), true))
    }

    /// The kind and the width of a column of numbers.
    fn numbers(&self) -> Option<(Kind, usize)> {
        match self.form {
            Form::List(width, kind) => Some((kind, width)),
            _ if self.nulls > 0 => None,
            _ => {
                let found = KINDS.iter().find(|(_, data_type)| data_type == self.field.data_type());
                found.map(|(kind, _)| (*kind, 0))
            }
        }
    }
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
