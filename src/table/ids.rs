//! Ids of three kinds, and where they are.

use std::fmt;
use std::sync::Arc;

use ahash::RandomState;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt64Type};
use arrow_array::{
    Array, ArrayRef, FixedSizeBinaryArray, Int64Array, LargeStringArray, UInt64Array,
};
use arrow_schema::{DataType, Field};
use hashbrown::HashTable;

use super::{Table, cast};
use crate::error::{Error, Result};

/// The name of Arrow's canonical type for UUIDs.
pub(crate) const UUID: &str = "arrow.uuid";

/// Bytes of a UUID.
const UUID_BYTES: i32 = 16;

/// What the ids of a table are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Int,
    /// Integers that may be beyond int64.
    Unsigned,
    Text,
    Uuid,
}

impl Kind {
    /// The kind of a column.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if ids cannot be of its type.
    pub(crate) fn of(field: &Field) -> Result<Self> {
        let uuid = field.extension_type_name() == Some(UUID);
        match field.data_type() {
            DataType::UInt64 => Ok(Self::Unsigned),
            data_type if data_type.is_integer() => Ok(Self::Int),
            DataType::LargeUtf8 => Ok(Self::Text),
            DataType::FixedSizeBinary(UUID_BYTES) if uuid => Ok(Self::Uuid),
            data_type => Err(Error::invalid(format!(
                "expected ids to be integers, strings or UUIDs, got {data_type} in the column '{}'",
                field.name()
            ))),
        }
    }

    pub(crate) fn is_integer(self) -> bool {
        matches!(self, Self::Int | Self::Unsigned)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Int | Self::Unsigned => "integers",
            Self::Text => "strings",
            Self::Uuid => "UUIDs",
        })
    }
}

/// Integers from `first` on.
///
/// # Errors
///
/// `InvalidParameter` if they do not all fit 64 bits.
pub(super) fn integers(first: i128, len: usize) -> Result<ArrayRef> {
    let last = first + (len as i128 - 1).max(0);
    if i64::try_from(last).is_ok() {
        let ids = (0..len as i128).map(|i| (first + i) as i64);
        return Ok(Arc::new(Int64Array::from_iter_values(ids)));
    }
    u64::try_from(last).map_err(|_| Error::invalid("no integers are left for ids"))?;
    let ids = (0..len as i128).map(|i| (first + i) as u64);
    Ok(Arc::new(UInt64Array::from_iter_values(ids)))
}

/// One id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key<'a> {
    Int(i128),
    Text(&'a str),
    Uuid(&'a [u8]),
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(id) => write!(f, "{id}"),
            Self::Text(id) => write!(f, "'{id}'"),
            Self::Uuid(id) => {
                for (i, byte) in id.iter().enumerate() {
                    let dash = if matches!(i, 4 | 6 | 8 | 10) { "-" } else { "" };
                    write!(f, "{dash}{byte:02x}")?;
                }
                Ok(())
            }
        }
    }
}

/// Ids, without nulls.
#[derive(Debug, Clone)]
pub(crate) enum Keys {
    Int(Int64Array),
    Unsigned(UInt64Array),
    Text(LargeStringArray),
    Uuid(FixedSizeBinaryArray),
}

impl Keys {
    /// The ids of a column.
    ///
    /// # Errors
    ///
    /// `InvalidParameter` if the column is of another kind.
    pub(crate) fn of(ids: &ArrayRef, kind: Kind) -> Result<Self> {
        Ok(match kind {
            Kind::Int => {
                Self::Int(cast(ids, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
            }
            Kind::Unsigned => {
                Self::Unsigned(cast(ids, &DataType::UInt64)?.as_primitive::<UInt64Type>().clone())
            }
            Kind::Text => Self::Text(cast(ids, &DataType::LargeUtf8)?.as_string::<i64>().clone()),
            Kind::Uuid => {
                let ids = cast(ids, &DataType::FixedSizeBinary(UUID_BYTES))?;
                Self::Uuid(ids.as_fixed_size_binary().clone())
            }
        })
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Int(ids) => ids.len(),
            Self::Unsigned(ids) => ids.len(),
            Self::Text(ids) => ids.len(),
            Self::Uuid(ids) => ids.len(),
        }
    }

    pub(crate) fn get(&self, i: usize) -> Key<'_> {
        match self {
            Self::Int(ids) => Key::Int(ids.value(i).into()),
            Self::Unsigned(ids) => Key::Int(ids.value(i).into()),
            Self::Text(ids) => Key::Text(ids.value(i)),
            Self::Uuid(ids) => Key::Uuid(ids.value(i)),
        }
    }
}

/// The labels of the ids of rows that are not removed.
///
/// It holds no ids: those are in the table, which every call is given.
#[derive(Debug, Default)]
pub(crate) struct Places {
    hasher: RandomState,
    labels: HashTable<i64>,
}

impl Places {
    /// The places of these labels' ids.
    pub(crate) fn of(table: &Table, labels: &[i64]) -> Self {
        let mut places = Self { labels: HashTable::with_capacity(labels.len()), ..Self::default() };
        labels.iter().for_each(|&label| places.insert(table, label));
        places
    }

    /// The label of an id.
    pub(crate) fn find(&self, table: &Table, key: &Key<'_>) -> Option<i64> {
        let same = |&label: &i64| table.key(label).as_ref() == Some(key);
        self.labels.find(self.hasher.hash_one(key), same).copied()
    }

    /// Notes the label of its id, in the place of an earlier one.
    pub(crate) fn insert(&mut self, table: &Table, label: i64) {
        let Some(key) = table.key(label) else { return };
        let hasher = &self.hasher;
        let same = |&other: &i64| table.key(other) == Some(key);
        let hash = |&label: &i64| table.key(label).map_or(0, |key| hasher.hash_one(key));
        self.labels.entry(hasher.hash_one(key), same, hash).insert(label);
    }

    /// Forgets the id of a label.
    pub(crate) fn remove(&mut self, table: &Table, label: i64) {
        let Some(key) = table.key(label) else { return };
        let entry = self.labels.find_entry(self.hasher.hash_one(key), |&other| other == label);
        if let Ok(entry) = entry {
            entry.remove();
        }
    }
}
