//! A file that is mapped, and checked where it is touched.

use std::fmt;
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use half::f16;

use super::format::{self, Parts};
use super::map::Map;
use super::{ALIGN, BLOCK, Kind, Shape, Value};
use crate::error::{Error, Result};

/// A mapped file. In an `Arc` it is the owner of whatever lies in it.
pub(crate) struct Mapped {
    pub(super) path: PathBuf,
    pub(super) map: Map,
    pub(super) parts: Parts,
    /// The number of blocks before each buffer.
    first_blocks: Vec<usize>,
    /// One bit for each block that was found good.
    verified: Vec<AtomicU64>,
}

/// A column of a [`Mapped`]: where its values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    buffer: usize,
    /// The number type of the values.
    pub(crate) kind: Kind,
    /// Values a row; 0 where a row is one plain value.
    pub(crate) width: usize,
    /// Bytes of all values: `rows * max(width, 1) * kind.size()`.
    pub(crate) len: usize,
}

impl Mapped {
    /// Maps a file and checks everything but what is in its columns.
    ///
    /// # Errors
    ///
    /// `File` if the system does not read or map it; `Damaged` if it is not what [`super::write`]
    /// writes.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = |error| Error::file(path, &error);
        // Asked before opening, which would wait for ever at the end of a pipe.
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(Error::not_a_file(path));
        }
        let file = File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        let len = usize::try_from(len).map_err(|_| {
            Error::damaged(path, None, format!("{len} bytes do not fit this machine's memory"))
        })?;
        // An empty file cannot be mapped.
        let map =
            if len == 0 { Map::of_bytes(&[]) } else { Map::of_file(&file, len).map_err(failed)? };
        Self::new(path, map)
    }

    /// The same for bytes that are in no file.
    pub(super) fn of_bytes(bytes: &[u8]) -> Result<Self> {
        Self::new(Path::new("<bytes>"), Map::of_bytes(bytes))
    }

    fn new(path: &Path, map: Map) -> Result<Self> {
        if cfg!(target_endian = "big") {
            return Err(Error::invalid("files are little-endian, and this processor is not"));
        }
        let parts = format::parse(&map).map_err(|what| Error::damaged(path, None, what))?;
        let mut blocks = 0;
        let mut first_blocks = Vec::with_capacity(parts.buffers.len());
        for (_, bytes) in &parts.buffers {
            first_blocks.push(blocks);
            blocks += bytes.len().div_ceil(BLOCK);
        }
        let verified = (0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { path: path.to_path_buf(), map, parts, first_blocks, verified })
    }

    /// The number of rows of every column.
    pub(crate) fn rows(&self) -> usize {
        self.parts.rows
    }

    /// The value of a key of the caller's metadata.
    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        self.parts.metadata.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// All of the caller's metadata.
    #[cfg(feature = "table")]
    pub(crate) fn all_metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parts.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The numbers of the columns in the file's order.
    pub(super) fn columns(&self) -> Range<usize> {
        self.parts.dictionaries.len()..self.parts.shapes.len()
    }

    /// The buffers of a column, or of a dictionary.
    pub(super) fn buffers(&self, column: usize) -> Range<usize> {
        let before = |column| self.parts.buffers.partition_point(|(owner, _)| *owner < column);
        before(column)..before(column + 1)
    }

    /// The column of numbers of that name, if there is one.
    pub(crate) fn column(&self, name: &str) -> Option<View> {
        let mut columns = self.columns();
        let column = columns.find(|&column| self.parts.shapes[column].field.name() == name)?;
        let (kind, width) = self.parts.shapes[column].numbers()?;
        let buffer = self.buffers(column).start;
        let len = self.parts.buffers[buffer].1.len();
        Some(View { buffer, kind, width, len })
    }

    /// The buffers of the column of that name, its dictionary's among them.
    fn buffers_of(&self, name: &str) -> impl Iterator<Item = usize> + '_ {
        let shapes = self.parts.shapes.iter().enumerate();
        let named: Vec<usize> =
            shapes.filter(|(_, shape)| shape.field.name() == name).map(|(i, _)| i).collect();
        named.into_iter().flat_map(|column| self.buffers(column))
    }

    /// The name, the type and the bytes of each column.
    pub(crate) fn describe(&self) -> Vec<(String, String, usize)> {
        let describe = |shape: &Shape| {
            let name = shape.field.name();
            let value = match shape.numbers() {
                Some((kind, 0)) => kind.name().to_owned(),
                Some((kind, width)) => format!("{}[{width}]", kind.name()),
                None => shape.field.data_type().to_string(),
            };
            let bytes = self.buffers_of(name).map(|buffer| self.parts.buffers[buffer].1.len());
            (name.clone(), value, bytes.sum())
        };
        self.parts.shapes[self.columns()].iter().map(describe).collect()
    }

    /// Checks all blocks of a column, as long as `step`, which is told of bytes, says so.
    ///
    /// # Errors
    ///
    /// `Damaged`, as [`Mapped::verify`].
    pub(crate) fn verify_column(
        &self,
        name: &str,
        mut step: impl FnMut(usize) -> bool,
    ) -> Result<()> {
        for buffer in self.buffers_of(name) {
            let len = self.parts.buffers[buffer].1.len();
            for start in (0..len).step_by(BLOCK) {
                let end = len.min(start + BLOCK);
                self.verify_buffer(buffer, start..end)?;
                if !step(end - start) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The column of that name, which must be there and have this type.
    ///
    /// # Errors
    ///
    /// `Damaged`, naming the column.
    pub(crate) fn expect(&self, name: &str, kind: Kind, width: usize) -> Result<View> {
        let what = match self.column(name) {
            Some(view) if (view.kind, view.width) == (kind, width) => return Ok(view),
            Some(View { kind: got, width: wide, .. }) => format!(
                "expected column {name} of {kind:?}, {width} a row, got {got:?}, {wide} a row"
            ),
            None => format!("it has no column {name} of numbers"),
        };
        Err(Error::damaged(&self.path, Some(name), what))
    }

    /// Where a column's `len` bytes lie, 64-byte aligned. They stay readable as long as `self`
    /// lives, may be changed by other programs, and are to be verified before they are read.
    pub(crate) fn pointer(&self, view: &View) -> *const u8 {
        self.map.pointer(&self.parts.buffers[view.buffer].1)
    }

    /// Checks the blocks under the bytes `bytes` of a column, unless they were checked before.
    ///
    /// # Errors
    ///
    /// `Damaged`, naming the column and the first such block.
    ///
    /// # Panics
    ///
    /// If the column has fewer bytes.
    pub(crate) fn verify(&self, view: &View, bytes: Range<usize>) -> Result<()> {
        self.verify_buffer(view.buffer, bytes)
    }

    /// The same for a buffer of any column.
    pub(super) fn verify_buffer(&self, buffer: usize, bytes: Range<usize>) -> Result<()> {
        let len = self.parts.buffers[buffer].1.len();
        assert!(bytes.end <= len, "bytes {bytes:?} of a buffer of {len}");
        if bytes.is_empty() {
            return Ok(());
        }
        for block in bytes.start / BLOCK..bytes.end.div_ceil(BLOCK) {
            let number = self.first_blocks[buffer] + block;
            let (word, bit) = (&self.verified[number / 64], 1 << (number % 64));
            if word.load(Ordering::Relaxed) & bit == 0 {
                self.verify_block(buffer, block, self.parts.checksums[number])?;
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    #[cold]
    fn verify_block(&self, buffer: usize, block: usize, expected: u32) -> Result<()> {
        let (column, data) = &self.parts.buffers[buffer];
        let (start, end) = (data.start + block * BLOCK, data.end.next_multiple_of(ALIGN));
        let end = end.min(start + BLOCK);
        if format::matches(self.map.checksum(start..end), expected) {
            return Ok(());
        }
        let first = self.first_blocks[self.buffers(*column).start];
        let block = self.first_blocks[buffer] + block - first;
        let name = self.parts.shapes[*column].field.name();
        let what = format!(
            "block {block} of {}column {} (bytes {start} to {end} of the file) does not match its \
             checksum",
            if self.columns().contains(column) { "" } else { "the dictionary of " },
            format::shown(name)
        );
        Err(Error::damaged(&self.path, Some(name), what))
    }

    /// Checks every block of every column but those of the names `but`.
    ///
    /// # Errors
    ///
    /// `Damaged`, as [`Mapped::verify`].
    pub(crate) fn check(&self, but: &[&str]) -> Result<()> {
        for (buffer, (column, bytes)) in self.parts.buffers.iter().enumerate() {
            if !but.contains(&self.parts.shapes[*column].field.name().as_str()) {
                self.verify_buffer(buffer, 0..bytes.len())?;
            }
        }
        Ok(())
    }

    /// A copy of some bytes of a column, verified, and `spare` zeros.
    ///
    /// # Errors
    ///
    /// `Damaged`, as [`Mapped::verify`].
    pub(crate) fn bytes(&self, view: &View, range: Range<usize>, spare: usize) -> Result<Vec<u8>> {
        self.verify(view, range.clone())?;
        let mut bytes = vec![0; range.len() + spare];
        let start = self.parts.buffers[view.buffer].1.start + range.start;
        self.map.copy(start, &mut bytes[..range.len()]);
        Ok(bytes)
    }

    /// A copy of the values `range` of a column, verified.
    ///
    /// # Errors
    ///
    /// `Damaged`, as [`Mapped::verify`].
    ///
    /// # Panics
    ///
    /// If the column is of another type or has fewer values.
    pub(crate) fn values<T: Value>(&self, view: &View, range: Range<usize>) -> Result<Vec<T>> {
        assert_eq!(view.kind, T::KIND);
        assert!(range.start <= range.end && range.end <= view.len / view.kind.size());
        let bytes = range.start * view.kind.size()..range.end * view.kind.size();
        self.verify(view, bytes.clone())?;
        let origin = self.parts.buffers[view.buffer].1.start;
        let mut values = Vec::with_capacity(range.len());
        let mut piece = vec![0; BLOCK.min(bytes.len())];
        for start in bytes.clone().step_by(BLOCK) {
            let piece = &mut piece[..BLOCK.min(bytes.end - start)];
            self.map.copy(origin + start, piece);
            T::take(piece, &mut values);
        }
        Ok(values)
    }
}

impl fmt::Debug for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapped({}, {} rows)", self.path.display(), self.rows())
    }
}

/// Opens bytes as a file and, if that is refused, says why; otherwise touches all of it.
///
/// What the fuzzer calls: nothing it can be given may panic, read outside the bytes, or allocate
/// more than a few times their number.
pub(crate) fn explore(bytes: &[u8]) -> Result<()> {
    let mapped = Mapped::of_bytes(bytes)?;
    for shape in &mapped.parts.shapes[mapped.columns()] {
        let Some((kind, width)) = shape.numbers() else { continue };
        let view = mapped.expect(shape.field.name(), kind, width)?;
        assert_eq!(mapped.pointer(&view).addr() % ALIGN, 0);
        mapped.verify(&view, 0..view.len)?;
        let values = 0..view.len / view.kind.size();
        assert_eq!(values.end, mapped.rows() * view.width.max(1));
        match view.kind {
            Kind::I64 => drop(mapped.values::<i64>(&view, values)?),
            Kind::I8 => drop(mapped.values::<i8>(&view, values)?),
            Kind::U8 => drop(mapped.values::<u8>(&view, values)?),
            Kind::U16 => drop(mapped.values::<u16>(&view, values)?),
            Kind::U32 => drop(mapped.values::<u32>(&view, values)?),
            Kind::F16 => drop(mapped.values::<f16>(&view, values)?),
            Kind::F32 => drop(mapped.values::<f32>(&view, values)?),
            Kind::F64 => drop(mapped.values::<f64>(&view, values)?),
        }
    }
    for (key, value) in &mapped.parts.metadata {
        let _ = (mapped.metadata(key), super::from_hex(value));
    }
    #[cfg(feature = "table")]
    for column in mapped.columns() {
        if !matches!(mapped.parts.shapes[column].form, super::Form::List(..)) {
            let array = crate::threads::alone(|worker| mapped.array(column, worker))?;
            assert_eq!(array.len(), mapped.rows());
        }
    }
    mapped.check(&[])
}
